SELECT es_state('Bench', '1000');
