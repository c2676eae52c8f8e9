# The life cycle of the background workers: who starts, who comes back, who leaves.
#
# The launcher's nap is an hour, so what happens here happens because somebody was woken; a test that waits
# for the nap itself shortens it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use Test::More;

my $node = new_node(
	'main',
	standbys => 1,
	conf => "eventsrc.launcher_naptime = '1h'\nrestart_after_crash = on\nmax_prepared_transactions = 5\n");

# All looking is done from this database, which always has the extension.
create_extension($node);

# wait_for_pid waits until a query finds one process, and returns its process id.
sub wait_for_pid
{
	my ($query) = @_;
	my $pid = '';
	for (my $end = time + $EventsrcTest::PATIENCE; $pid !~ /^\d+$/; select(undef, undef, undef, 0.1))
	{
		die "no process: $query" if time > $end;
		my ($status, $out) = $node->psql('postgres', "SELECT pid $query");
		$pid = $out if !$status;
	}
	return $pid;
}

# worker_pid waits for the running worker of a database, other than one known, and returns its process id.
sub worker_pid
{
	my ($database, $not) = @_;
	$not //= 0;
	return wait_for_pid(
		"FROM es_workers WHERE kind = 'database' AND database = '$database' AND state = 'running' AND pid <> $not");
}

# wait_gone waits until no worker of ours is in a database.
sub wait_gone
{
	my ($database, $what) = @_;
	return wait_until($node,
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'eventsrc%' AND datname = '$database'",
		$what);
}

# launcher_pid waits for the launcher, other than one known, and returns its process id.
sub launcher_pid
{
	my ($not) = @_;
	$not //= 0;
	return wait_for_pid("FROM pg_stat_activity WHERE backend_type = 'eventsrc launcher' AND pid <> $not");
}

# --- start

my $pid = worker_pid('postgres');
is($node->safe_psql('postgres', "SELECT backend_type, datname, application_name LIKE 'eventsrc worker for database %' FROM pg_stat_activity WHERE pid = $pid"),
	'eventsrc worker|postgres|t', 'CREATE EXTENSION brings a worker');
is($node->safe_psql('postgres', "SELECT kind, state, failures FROM es_workers WHERE database IS NULL"),
	'launcher|running|0', 'es_workers shows the launcher');

$node->safe_psql('postgres', 'CREATE DATABASE shop');
is($node->safe_psql('shop', 'BEGIN; CREATE EXTENSION eventsrc; ROLLBACK; SELECT count(*) FROM pg_extension WHERE extname = \'eventsrc\''),
	'0', 'CREATE EXTENSION rolled back');
create_extension($node, 'shop');
my $shop = worker_pid('shop');
isnt($shop, $pid, 'another database has a worker of its own');

# --- what the worker does

$node->safe_psql('postgres', 'SELECT es_create_store()');
$node->safe_psql('postgres', "SELECT es_append('Order', '1', 'Placed')");
wait_until($node, 'SELECT position = es_safe_position() AND position > 0 FROM eventsrc.published_position',
	'the worker publishes the safe position');
$node->safe_psql('postgres', "BEGIN; SELECT es_append('Order', '1', 'Paid'); ROLLBACK");
$node->safe_psql('postgres', "SELECT es_append('Order', '1', 'Sent')");
wait_until($node, 'SELECT position = es_safe_position() FROM eventsrc.published_position',
	'and goes on to do so');
wait_until($node, "SELECT n_tup_ins = 1 AND n_tup_upd >= 2 AND n_tup_upd = n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'eventsrc.published_position'::regclass",
	'in one row that stays on its page');
wait_until($node, "SELECT state = 'idle' AND xact_start IS NULL AND backend_xmin IS NULL FROM pg_stat_activity WHERE pid = $pid",
	'it waits without a transaction');

# --- terminated

$node->safe_psql('postgres', "SELECT pg_terminate_backend($shop)");
$shop = worker_pid('shop', $shop);
ok($shop, 'a terminated worker comes back');
is($node->safe_psql('postgres', "SELECT failures, last_error FROM es_workers WHERE pid = $shop"),
	'0|', 'and that counts as no failure');

my $launcher = launcher_pid();
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
$launcher = launcher_pid($launcher);
ok($launcher, 'a terminated launcher comes back');
is(worker_pid('shop'), $shop, 'the databases\' workers stay meanwhile');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($shop)");
$shop = worker_pid('shop', $shop);
ok($shop, 'the new launcher looks after them');

# --- DROP EXTENSION

$node->safe_psql('shop', 'BEGIN; DROP EXTENSION eventsrc; ROLLBACK');
is(worker_pid('shop'), $shop, 'DROP EXTENSION rolled back leaves the worker');
$node->safe_psql('shop', 'DROP EXTENSION eventsrc');
wait_gone('shop', 'the worker leaves at DROP EXTENSION');
create_extension($node, 'shop');
$shop = worker_pid('shop');
ok($shop, 'and comes back with the extension');
$node->safe_psql('shop', 'BEGIN; DROP EXTENSION eventsrc; CREATE EXTENSION eventsrc; COMMIT');
$shop = worker_pid('shop', $shop);
ok($shop, 'an extension made anew has a new worker');
$node->safe_psql('shop', 'DROP EXTENSION eventsrc');
create_extension($node, 'shop');
$shop = worker_pid('shop', $shop);
ok($shop, 'also when the old one had no time to leave');

$node->safe_psql('shop', 'DROP EXTENSION eventsrc; CREATE ROLE boss SUPERUSER; SET ROLE boss; CREATE EXTENSION eventsrc');
$shop = worker_pid('shop', $shop);
$node->safe_psql('shop', 'DROP OWNED BY boss CASCADE');
wait_gone('shop', 'the worker leaves at DROP OWNED');

is(sqlstate_of($node, 'BEGIN; CREATE EXTENSION eventsrc; PREPARE TRANSACTION \'t\'', 'shop'),
	'0A000', 'CREATE EXTENSION cannot be prepared: nobody would be told of its commit');

# --- commands that need the database alone

create_extension($node, 'shop');
$shop = worker_pid('shop');

$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN CREATEDB');
foreach my $command (
	'DROP DATABASE shop',
	'ALTER DATABASE shop RENAME TO mine',
	'ALTER DATABASE shop SET TABLESPACE pg_default',
	'CREATE DATABASE mine TEMPLATE shop')
{
	is(sqlstate_of($node, "SET SESSION AUTHORIZATION stranger;\n$command"), '42501', "a stranger may not $command");
}
is(worker_pid('shop'), $shop, 'and stops no worker by it');

$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE shop');
pass('CREATE DATABASE with a served database as template');
ok(worker_pid('copy'), 'the copy has a worker');
$shop = worker_pid('shop', $shop);
ok($shop, 'and the original has one again');

$node->safe_psql('postgres', 'ALTER DATABASE copy RENAME TO other');
ok(worker_pid('other'), 'a renamed database has its worker again');
$shop = worker_pid('shop');
is(sqlstate_of($node, 'ALTER DATABASE shop RENAME TO other'), '42P04', 'a rename that fails');
$shop = worker_pid('shop', $shop);
ok($shop, 'brings the worker back');

$node->safe_psql('postgres', "SET allow_in_place_tablespaces = on;\nCREATE TABLESPACE elsewhere LOCATION ''");
$node->safe_psql('postgres', 'ALTER DATABASE other SET TABLESPACE elsewhere');
my $other = worker_pid('other');
ok($other, 'a moved database has its worker again');

$node->safe_psql('postgres', 'DROP DATABASE other');
$node->safe_psql('postgres', 'DROP TABLESPACE elsewhere');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $other"), '0',
	'DROP DATABASE while the worker is there');
$node->safe_psql('postgres', 'DROP DATABASE shop WITH (FORCE)');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $shop"), '0',
	'DROP DATABASE WITH (FORCE) while the worker is there');

# --- the launcher's own look at the databases

$node->safe_psql('postgres', 'CREATE DATABASE shelf');
create_extension($node, 'shelf');
worker_pid('shelf');
$node->append_conf('postgresql.conf', 'eventsrc.launcher_naptime = 1s');
$node->reload;
$node->safe_psql('postgres', 'ALTER DATABASE shelf IS_TEMPLATE true');
wait_gone('shelf', 'the worker leaves a database that becomes a template');
$node->safe_psql('postgres', 'ALTER DATABASE shelf IS_TEMPLATE false');
ok(worker_pid('shelf'), 'and comes back when it is none any more');
$node->append_conf('postgresql.conf', "eventsrc.launcher_naptime = '1h'");
$node->reload;

# --- failures

my $shelf = worker_pid('shelf');
$node->safe_psql('shelf', 'ALTER TABLE eventsrc.published_position RENAME TO hidden');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($shelf)");
wait_until($node, "SELECT failures >= 2 AND state = 'failed' AND retry_at IS NOT NULL AND pid IS NULL FROM es_workers WHERE database = 'shelf'",
	'a failing worker pauses between its attempts');
like($node->safe_psql('postgres', "SELECT last_error FROM es_workers WHERE database = 'shelf'"),
	qr/published_position/, 'its last error is shown');
$node->safe_psql('postgres', 'CREATE ROLE watcher; GRANT pg_monitor TO watcher');
is($node->safe_psql('postgres', "SET ROLE watcher; SELECT last_error LIKE '%published_position%' FROM es_workers WHERE database = 'shelf'"),
	't', 'to members of pg_monitor too');
is($node->safe_psql('postgres', "SET ROLE stranger; SELECT failures > 0, last_error IS NULL FROM es_workers WHERE database = 'shelf'"),
	't|t', 'but not to everybody');
$node->safe_psql('shelf', 'ALTER TABLE eventsrc.hidden RENAME TO published_position');
ok(worker_pid('shelf'), 'it goes on once it can');

# --- restarts

$node->restart;
ok(worker_pid('postgres') && worker_pid('shelf'), 'after a restart of the server all workers run');
$node->stop('immediate');
$node->start;
$pid = worker_pid('postgres');
ok($pid && worker_pid('shelf'), 'after an immediate stop too');
ok(kill_process($node, $pid), 'a worker is killed, which restarts the cluster');
$pid = worker_pid('postgres', $pid);
ok($pid && worker_pid('shelf'), 'and they run again');

# --- standby

$node->safe_psql('postgres', "SELECT es_append('Order', '1', 'Closed')");
my $safe = $node->safe_psql('postgres', 'SELECT es_safe_position()');

my $standby = add_standby($node);
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'eventsrc%'"),
	'0', 'a standby has no workers');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM es_workers'), '0', 'as es_workers says there');
ok($standby->poll_query_until('postgres', "SELECT es_safe_position() = $safe"), 'it knows the safe position');
$node->stop;
$standby->promote;
ok( $standby->poll_query_until('postgres',
		"SELECT count(*) = 2 FROM es_workers WHERE kind = 'database' AND state = 'running' AND database IN ('postgres', 'shelf')"),
	'they start at promotion');
$standby->stop;

# --- no room

my $small = new_node('small', conf => "max_worker_processes = 1\nmax_logical_replication_workers = 0\n");
create_extension($small);
wait_for_log($small, qr/WARNING:  out of background worker slots for eventsrc\n.*\n.*HINT:  .*max_worker_processes/,
	'where no process is left for a worker, the log says so');
wait_until($small, "SELECT state = 'failed' AND last_error LIKE '%max_worker_processes%' FROM es_workers WHERE database = 'postgres'",
	'and es_workers too, and the server goes on');
$small->stop;

done_testing();
