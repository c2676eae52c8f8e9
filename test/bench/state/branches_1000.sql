SELECT es_state('Branches', '1000');
