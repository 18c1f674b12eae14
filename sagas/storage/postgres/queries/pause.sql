-- Pauses a saga name, or changes who paused it and why.
INSERT INTO saga_pauses (name, by, because) VALUES (:'name', :'actor', :'reason')
ON CONFLICT (name) DO UPDATE SET by = EXCLUDED.by, because = EXCLUDED.because
