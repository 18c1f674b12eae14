-- The sagas with signals that nobody delivered: their sender died, or gave no notice of its commit.
SELECT DISTINCT saga_id FROM (
    SELECT saga_id FROM saga_signals
    WHERE NOT delivered AND sent_at <= statement_timestamp() - make_interval(secs => :'age')
    ORDER BY sent_at
    LIMIT :'limit'
) AS oldest
