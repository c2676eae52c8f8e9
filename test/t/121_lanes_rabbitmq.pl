# A relay with several lanes to a real RabbitMQ: every event arrives, each stream's in order but for redeliveries, while
# workers are terminated and the number of lanes changes.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcRabbit;
use EventsrcTest;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $rabbit = new_rabbit();
my $port = $rabbit->port;
my $node = new_node('relay', conf => "log_statement = none\nsynchronous_commit = local\n");
create_extension($node);
$node->safe_psql('postgres', <<"END");
SELECT es_create_store();
CREATE SERVER mq FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host '127.0.0.1', port '$port',
    exchange 'events', declare 'queues', queues 'orders=es.Order');
SELECT es_create_relay('orders', 'mq', options => '{"lanes": 3}');
END

my $script = "${PostgreSQL::Test::Utils::tmp_check}/lanes.sql";
PostgreSQL::Test::Utils::append_to_file($script, "\\set stream random(1, 20)\nSELECT es_append('Order', (:stream)::text, 'Placed');\n");
foreach my $count (3, 2, 1, 4)
{
	my $load = IPC::Run::start(
		[ 'pgbench', '-n', '-c', '2', '-R', '300', '-t', '300', '-f', $script, '-h', $node->host, '-p', $node->port, 'postgres' ],
		'<', \undef, '>', '/dev/null', '2>', '/dev/null');
	usleep(200_000 + int rand 300_000);
	$node->safe_psql('postgres', qq(SELECT es_alter_relay('orders', options => '{"lanes": $count}')));
	usleep(int rand 300_000);
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'eventsrc relay'});
	$load->finish;
	wait_for_relay($node, 'orders', "lag_events = 0 AND state = 'running' AND lanes = $count");
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM es_relay_lanes WHERE pid IS NOT NULL'), '4', 'each lane has a worker');

my $expected = $node->safe_psql('postgres', 'SELECT aggregate_id, version, event_id FROM es.events ORDER BY aggregate_id, version');
my (%seen, %last, @wrong, $again);
foreach my $message ($rabbit->messages('orders', brief => 1))
{
	my ($key, $version, $event_id) = @$message;
	$again++, next if $seen{"$key|$version|$event_id"}++;
	push @wrong, "$key: $version after $last{$key}" if $version != ($last{$key} // 0) + 1;
	$last{$key} = $version;
}
is_deeply(\@wrong, [], 'the order of each stream is kept');
is(join("\n", map { join '|', @$_ } sort { $a->[0] cmp $b->[0] || $a->[1] <=> $b->[1] } map { [ split /\|/ ] } keys %seen),
	$expected, 'every committed event arrived, and nothing else');
note(sprintf '%d events, %d of them again', scalar keys %seen, $again // 0);

unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|terminated by signal|TRAP/, 'no process crashed');
$node->stop;
done_testing();
