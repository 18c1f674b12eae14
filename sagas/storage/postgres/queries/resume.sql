-- Ends the pause of a saga name.
DELETE FROM saga_pauses WHERE name = :'name'
