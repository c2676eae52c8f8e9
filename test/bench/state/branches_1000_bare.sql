SELECT bench_branches_loop('1000');
