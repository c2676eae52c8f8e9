CREATE PROCEDURE load(events int, payload jsonb) LANGUAGE plpgsql AS $$
BEGIN
    FOR n IN 0 .. events - 1 LOOP
        PERFORM write_message(gen_random_uuid()::varchar, 'account-' || n % 1000, 'Deposited', payload);
        IF n % 1000 = 999 THEN COMMIT; END IF;
    END LOOP;
END $$;
