SELECT es_state('Long', 'long');
