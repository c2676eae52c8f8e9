SELECT es_state('Plpgsql', '100');
