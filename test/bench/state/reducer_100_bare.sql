SELECT bench_plpgsql_loop('100');
