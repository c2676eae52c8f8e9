CREATE PROCEDURE load(events int, payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
    FOR n IN 0 .. events - 1 LOOP
        PERFORM emt_append_to_stream(ARRAY[gen_random_uuid()::text], ARRAY[payload], '{"{}"}', '{1}', '{Deposited}', '{E}',
                                     'account-' || n % 1000, 'account', NULL, 'emt:default');
        IF n % 1000 = 999 THEN COMMIT; END IF;
    END LOOP;
END $$;
