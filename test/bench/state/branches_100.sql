SELECT es_state('Branches', '100');
