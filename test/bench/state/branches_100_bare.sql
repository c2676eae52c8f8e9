SELECT bench_branches_loop('100');
