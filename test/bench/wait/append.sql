\set i :i + 1
SELECT version FROM es_append('Bench', 'w' || :run || '-' || :i % 100, 'Happened', :p);
