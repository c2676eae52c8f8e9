# A relay whose broker takes nothing for the moment waits, whatever it has to send: it uses next to no processor time,
# and wakes up a few times a second at most.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcRabbit;
use EventsrcTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $ticks = `getconf CLK_TCK`;
my $kafka = new_kafka();
my $rabbit = new_rabbit();
my $node = new_node('main');
create_extension($node);

# usage returns the processor time that a process has used, in seconds, and how often its main thread has slept.
sub usage
{
	my ($pid) = @_;
	my @stat = split / /, slurp_file("/proc/$pid/stat") =~ s/^.*\) //sr;
	slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m or die 'no voluntary_ctxt_switches';
	my $slept = $1;
	return (($stat[11] + $stat[12]) / $ticks, $slept);
}

# check_idle checks that a relay's worker does next to nothing for some seconds.
sub check_idle
{
	my ($name, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $pid = relay_column($node, $name, 'pid');
	my ($used, $slept) = usage($pid);
	my $begun = time;
	usleep(3_000_000);
	my ($used_then, $slept_then) = usage($pid);
	my $seconds = time - $begun;
	is(relay_column($node, $name, 'pid'), $pid, "$what: the worker is the same");
	cmp_ok($used_then - $used, '<', $seconds / 3, "$what: it uses little processor time");
	cmp_ok($slept_then - $slept, '<', 150 * $seconds, "$what: it seldom wakes up");
	note(sprintf '%s: %.2f s used, woken %d times in %.1f s', $what, $used_then - $used, $slept_then - $slept, $seconds);
	return;
}

# append appends events of a size, and of a type.
sub append
{
	my ($count, $size, $type) = @_;
	$type //= 'Placed';
	$node->safe_psql('postgres', <<"END");
SELECT count(es_append('Order', (n % 10)::text, '$type', jsonb_build_object('x', repeat('x', $size)))) FROM generate_series(1, $count) n
END
	return;
}

my $port = $rabbit->port;
my $brokers = $kafka->address;
$node->safe_psql('postgres', <<"END");
SELECT es_create_store();
CREATE SERVER rabbit FOREIGN DATA WRAPPER eventsrc
	OPTIONS (type 'rabbitmq', host '127.0.0.1', port '$port', declare 'queues', queues 'events', heartbeat '60');
CREATE SERVER kafka FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "bootstrap.servers" '$brokers');
CREATE SERVER bulky FOREIGN DATA WRAPPER eventsrc
	OPTIONS (type 'kafka', "bootstrap.servers" '$brokers', "message.max.bytes" '20000000');
SELECT es_create_relay('rabbit', 'rabbit', 'events', options => '{"event_types": ["Placed"]}');
SELECT es_create_relay('once', 'kafka', 'once', options => '{"event_types": ["Placed"]}');
SELECT es_create_relay('least', 'kafka', 'least', options => '{"event_types": ["Placed"], "delivery": "at_least_once"}');
SELECT es_create_relay('bulky', 'bulky', 'bulky', options => '{"event_types": ["Uploaded"], "delivery": "at_least_once"}');
END
append(100, 10);
append(1, 10, 'Uploaded');
my @relays = qw(rabbit once least bulky);
wait_for_relay($node, $_, q{state = 'running' AND lag_events = 0}) foreach @relays;

# several relays that wait for the same events do not wake each other
append(1, 10) foreach 1 .. 20;
check_idle($_, "$_: some events came") foreach @relays;

# RabbitMQ reads nothing from those who publish; then the buffer fills
$rabbit->ctl('set_vm_memory_high_watermark', '0');
append(1, 10);
wait_for_relay($node, 'rabbit', q{state = 'retrying' AND last_error LIKE 'blocked: %'});
check_idle('rabbit', 'rabbit: an alarm, one event on its way');
append(2000, 2000);
check_idle('rabbit', 'rabbit: an alarm, more to come');

# Kafka hangs with one request on its way; then there is more than the window takes.  (The one that delivers at least once
# is left out then: librdkafka's own thread asks again and again whether it may send, once as many requests are on their
# way as may be.)
my @hanging = qw(once least bulky);
wait_for_relay($node, $_, q{state = 'running' AND lag_events = 0}) foreach @hanging;
my $process = $kafka->process;
kill 'STOP', $process;
append(1, 10);
append(1, 7_000_000, 'Uploaded');
wait_for_relay($node, $_, 'lag_events > 0') foreach @hanging;
check_idle($_, "$_: the broker hangs") foreach @hanging;
append(1, 10_000_000, 'Uploaded');
check_idle('bulky', 'bulky: the broker hangs, one more does not fit into the window');
append(40_000, 10);
check_idle('once', 'once: the broker hangs, more events than the window takes');
kill 'CONT', $process;
$node->safe_psql('postgres', q{SELECT es_drop_relay(relay) FROM es_relays});
$node->stop;
done_testing();
