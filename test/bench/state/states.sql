SELECT count(*), max(version) FROM es_states('Many');
