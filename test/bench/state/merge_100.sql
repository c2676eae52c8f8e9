SELECT es_state('Bench', '100');
