SELECT bench_plpgsql_loop('1000');
