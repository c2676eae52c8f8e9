# A relay to a real RabbitMQ delivers each committed event, and the events of a stream in order but for those that
# come again, whatever fails: the broker is killed or short of memory, the worker is terminated, the server crashes,
# the network hangs, breaks and half-closes.  A promoted standby goes on, and the old primary, which still runs or
# comes back, sends nothing more.  An independent consumer reads everything.
#
# EVENTSRC_TORTURE=n makes it n times as long.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcRabbit;
use EventsrcRelay;
use EventsrcTest;
use Test::More;
use Time::HiRes qw(usleep);

my $torture = $ENV{EVENTSRC_TORTURE} || 1;
my $rabbit = new_rabbit();
my $proxy = new_proxy($rabbit->address);

# check_queue waits until a server's relay has sent all and compares what came with what is committed there.
sub check_queue
{
	my ($node, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for_relay($node, 'orders', $SENT);
	check_came($node, $rabbit, 'orders', $what, least => 500, again => 'any');
	return;
}

# list_queues returns the names of all queues.
sub list_queues
{
	return join ' ', sort grep { $_ ne 'name' } split /\s+/, $rabbit->ctl('list_queues', 'name');
}

my $port = $proxy->port;
my $primary = new_node('primary0', standbys => 1, conf => "log_statement = none\nsynchronous_commit = local\n");
create_extension($primary);
$primary->safe_psql('postgres', <<"END");
SELECT es_create_store();
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc
	OPTIONS (type 'rabbitmq', host '127.0.0.1', port '$port', declare 'queues', queues 'orders', heartbeat '2', connect_timeout '3');
SELECT es_create_relay('orders', 'rabbit', 'orders');
END

# --- what can happen to one server and its broker, while events stream ---

my %mishaps = (
	common_mishaps($primary, $rabbit, $proxy),
	'the broker is short of memory' => sub {
		$rabbit->ctl('set_vm_memory_high_watermark', '0');
		usleep(500_000);
		$rabbit->ctl('set_vm_memory_high_watermark', 'absolute', '1GB');
	});
wait_for_relay($primary, 'orders', q{state = 'running' AND pid IS NOT NULL});
# RabbitMQ (seen with 3.10) has a quorum queue's Raft identifier on disk only seconds after it declared it, or when it
# stops.  If it is killed before, it makes up another one, which has no leader: the queue takes nothing any more.  So it
# stops once, when it has the queue.
$primary->safe_psql('postgres', q{SELECT es_append('Order', '1', 'Placed')});
wait_for_relay($primary, 'orders', $SENT);
$rabbit->stop;
$rabbit->start;
foreach my $round (1 .. $torture)
{
	suffer($primary, \%mishaps, resume => 1);
	check_queue($primary, "round $round");
}
is(list_queues(), 'orders', 'as long as there is one timeline, no queue marks one as over');

# --- a standby takes over ---

my $standby = add_synchronous_standby($primary);
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'eventsrc relay'}),
	'0', 'on a standby no relay runs');

take_over($standby, $primary);
my $load = start_load($standby);

# the old primary leaves off by itself; only then it commits what nobody else has
my $fenced = q{state = 'stopped' AND last_error LIKE 'another server sends in place of this one%'};
wait_for_relay($primary, 'orders', $fenced);
note(relay_column($primary, 'orders', 'last_error'));
release_commits($primary);
$primary->safe_psql('postgres', q{SELECT es_append('Order', 'ghost', 'Placed')});
wait_for_relay($primary, 'orders', 'lag_events > 0');
end_load($load);
check_queue($standby, 'after the promotion');

# the old primary comes back, and is asked to go on
$primary->stop('immediate');
$primary->start;
wait_for_relay($primary, 'orders', $fenced);
my $time = relay_column($primary, 'orders', 'last_error_at');
$primary->safe_psql('postgres', q{SELECT es_resume_relay('orders')});
wait_for_relay($primary, 'orders', "$fenced AND last_error_at > '$time'");
end_load(start_load($standby));
check_queue($standby, 'after the old primary came back');

# the promoted server goes on over crashes, too
$standby->stop('immediate');
$standby->start;
end_load(start_load($standby));
check_queue($standby, 'after a crash of the promoted server');

# who decides for the old primary removes the mark
my @marks = grep { $_ ne 'orders' } split / /, list_queues();
is(scalar @marks, 1, 'a queue marks a timeline as over');
like($marks[0], qr/^eventsrc\.over\..*\.1$/, 'the first');
$standby->stop;
$rabbit->ctl('delete_queue', $marks[0]);
$primary->safe_psql('postgres', q{SELECT es_resume_relay('orders')});
wait_for_relay($primary, 'orders', $SENT);
is(scalar(grep { $_->{key} eq 'ghost' } $rabbit->brief('orders')), 1, 'without it the old primary sends again');
check_no_crash($primary, $standby);

# --- a user who may only publish to an exchange: the relay works, the log says what is missing ---

$rabbit->bind('narrow', 'narrow', '#');
$rabbit->ctl('add_user', 'narrow', 'hush-hush');
$rabbit->ctl('set_permissions', 'narrow', '^$', '^narrow$', '^$');
$primary->safe_psql('postgres', <<"END");
SELECT es_drop_relay('orders');
CREATE SERVER narrow FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host '127.0.0.1', port '$port', exchange 'narrow');
CREATE USER MAPPING FOR CURRENT_USER SERVER narrow OPTIONS ("user" 'narrow', password 'hush-hush');
SELECT es_create_relay('orders', 'narrow');
END
wait_for_relay($primary, 'orders', q{state = 'running' AND lag_events = 0 AND sent > 500});
wait_for_log($primary, qr/relay "orders" at position \d+ is not protected from another server that took over: ACCESS_REFUSED/,
	'the log says that it is not fenced');

$primary->stop;
done_testing();
