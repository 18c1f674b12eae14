-- Records the newest tick that a schedule has dealt with. A scan that was slow does not put it back.
INSERT INTO saga_schedules (name, last_tick) VALUES (:'name', :'tick')
ON CONFLICT (name) DO UPDATE SET last_tick = EXCLUDED.last_tick
WHERE saga_schedules.last_tick < EXCLUDED.last_tick
