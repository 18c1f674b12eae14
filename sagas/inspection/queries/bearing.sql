-- What operators have asked for a saga: whether its name is paused, and who requested that its holder yields it.
SELECT p.name, p.by AS actor, p.because AS reason, p.since, a.by AS yield_requested_by
FROM (SELECT) AS one
LEFT JOIN saga_pauses p ON p.name = :'name'
LEFT JOIN saga_asks a ON a.saga_id = :'id' AND a.until > statement_timestamp()
