# es_wait() sleeps until another session decides positions, wakes everybody whom that interests, ends when it
# is told to, and works on a standby and across its promotion.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use Test::More;

my $node = new_node('primary', standbys => 1, conf => "max_connections = 60\nautovacuum = off\n");
create_extension($node);
$node->safe_psql('postgres', 'SELECT es_create_store()');
$node->safe_psql('postgres', q{SELECT es_append('Order', '1', 'First')});

# position returns the safe position.
sub position { return $node->safe_psql('postgres', 'SELECT es_safe_position()'); }

# sleeping waits until a number of sessions sleeps in es_wait().
sub sleeping
{
	my ($number, $where) = @_;
	return wait_until($where // $node, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Extension'
		AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND query LIKE '%es\_wait(%'}, "$number wait", $number);
}

my ($writer, $other, @waiters) = map { new_session($node) } 1 .. 22;
my $waiter = $waiters[0];

# --- what wakes

my $at = position();
$writer->query(q{BEGIN; SELECT es_append('Order', '1', 'Second')});
$waiter->start("SELECT es_wait($at, '1 day') > $at");
sleeping(1);
$writer->query('COMMIT');
is($waiter->result, 't', 'a commit wakes');
is($waiter->query("SELECT event_type FROM es_read_all($at)"), 'Second', 'and what it appended can be read');

$at = position();
$writer->query(q{BEGIN; SELECT es_append('Order', '1', 'Third')});
$waiter->start("SELECT es_wait($at, '1 day') > $at");
sleeping(1);
$writer->query('ROLLBACK');
is($waiter->result, 't', 'a rollback decides positions too');
is($waiter->query("SELECT count(*) FROM es_read_all($at)"), '0', 'though there is nothing to read');

$at = position();
$writer->query(q{BEGIN; SAVEPOINT s; SELECT es_append('Order', '1', 'Third'); ROLLBACK TO s});
$waiter->start("SELECT es_wait($at, '1 day') > $at");
sleeping(1);
$other->query(q{SELECT es_append('Order', '2', 'Other')});
sleeping(1);
is(position(), $at, 'what is committed behind an undecided position is no news');
$writer->query('COMMIT');
is($waiter->result, 't', 'until that is decided');
is($waiter->query("SELECT event_type FROM es_read_all($at)"), 'Other', 'then it can be read');

$at = position();
my $idle = new_session($node);
$idle->query(q{BEGIN; SELECT es_append('Order', '3', 'Lost')});
$waiter->start("SELECT es_wait($at, '1 day') > $at");
sleeping(1);
$idle->quit;
is($waiter->result, 't', 'the end of a session that appended and did not commit wakes');

$at = position();
$waiter->start("SELECT es_wait($at, '1 day') > $at");
sleeping(1);
$writer->query(q{SELECT es_create_store('second')});
sleeping(1);
$writer->query(q{SELECT es_append('Order', '1', 'Elsewhere', store => 'second')});
is($waiter->result, 't', 'so does an append to another store');

# --- many

$at = position();
$_->start("SELECT es_wait($at, '1 day') > $at") foreach @waiters;
sleeping(scalar @waiters);
$writer->query(q{SELECT es_append('Order', '1', 'All')});
is_deeply([ map { $_->result } @waiters ], [ map { 't' } @waiters ], 'one commit wakes all');

# some want more than others, some are told to end while they are woken
foreach my $round (1 .. 10)
{
	$at = position();
	my $far = $at + 5;
	$waiters[$_]->start('SELECT es_wait(' . ($_ % 2 ? $far : $at) . ", '1 day') > " . ($_ % 2 ? $far : $at)) foreach 0 .. $#waiters;
	sleeping(scalar @waiters);
	my $pids = join ',', $node->safe_psql('postgres', q{SELECT string_agg(pid::text, ',') FROM (SELECT pid FROM pg_stat_activity
		WHERE state = 'active' AND query LIKE '%es\_wait(} . $at . q{,%' ORDER BY random() LIMIT 3) p});
	$writer->start(q{SELECT version FROM es_append('Order', '1', 'Near')});
	$other->query("SELECT pg_cancel_backend(pid) FROM unnest(ARRAY[$pids]) pid");
	$writer->result;
	my @near = map { $waiters[$_]->result } grep { $_ % 2 == 0 } 0 .. $#waiters;
	my @errors = grep { $_ ne 't' } @near;
	cmp_ok(scalar @errors, '<=', 3, "round $round: those who want no more were woken or cancelled");
	sleeping(@waiters / 2);
	$writer->query(q{SELECT es_append_events('Order', '1', '{A,B,C,D,E}', array_fill('{}'::jsonb, ARRAY[5]))});
	my @far = map { $waiters[$_]->result } grep { $_ % 2 == 1 } 0 .. $#waiters;
	is_deeply(\@far, [ map { 't' } @far ], "round $round: the others when there was enough");
}
is($waiter->query('SELECT es_safe_position() >= 0'), 't', 'the sessions go on');

# --- what ends it

$at = position();
$waiter->start("SET statement_timeout = '50ms'; SELECT es_wait($at, '1 day')");
$waiter->result;
like($waiter->last_error, qr/57014/, 'statement_timeout');
$waiter->query('RESET statement_timeout');

my $doomed = new_session($node);
my $pid = $doomed->pid;
$doomed->start("SELECT es_wait($at, '1 day')");
$waiter->start("SELECT es_wait($at, '1 day') > $at");
sleeping(2);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
wait_until($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid", 'a terminated session ends');
sleeping(1);
$writer->query(q{SELECT es_append('Order', '1', 'Last')});
is($waiter->result, 't', 'others are woken as before');
eval { $doomed->quit };

# it neither keeps the owner from altering the store nor, through that, the writers
$at = position();
$waiter->start("SELECT es_wait($at, '1 day') > $at");
sleeping(1);
is(sqlstate_of($node, "SET lock_timeout = '10s'; ALTER TABLE es.events ADD CHECK (event_type <> 'Never')"), '00000', 'the table can be altered');
$writer->query(q{SELECT es_append('Order', '1', 'Altered')});
is($waiter->result, 't', 'and the waiter is woken');

# --- a standby

$_->quit foreach @waiters, $other;
my $standby = add_standby($node);
$at = position();
wait_until($standby, "SELECT es_safe_position() = $at", 'the standby is there');
$waiter = new_session($standby);
is($waiter->query("SELECT es_wait($at, '10ms') = $at"), 't', 'on a standby the timeout ends it');
$waiter->start("SELECT es_wait($at, '1 day') > $at");
sleeping(1, $standby);
$writer->query(q{SELECT es_append('Order', '1', 'ForStandby')});
is($waiter->result, 't', 'so does what the primary appends');
is($waiter->query("SELECT event_type FROM es_read_all($at)"), 'ForStandby', 'and there it is');

$at = position();
wait_until($standby, "SELECT es_safe_position() = $at", 'the standby has all');
$waiter->start("SELECT es_wait($at, '1 day') > $at");
sleeping(1, $standby);
$writer->quit;
$node->stop;
promote_standby($standby);
$standby->safe_psql('postgres', q{SELECT es_append('Order', '1', 'Promoted')});
is($waiter->result, 't', 'who slept across the promotion is woken by appends after it');
$waiter->quit;
$standby->stop;
done_testing();
