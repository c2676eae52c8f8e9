SELECT es_state('Plpgsql', '1000');
