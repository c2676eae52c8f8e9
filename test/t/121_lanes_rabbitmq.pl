# A relay with several lanes to a real RabbitMQ: every event arrives, each stream's in order but for redeliveries, while
# workers are terminated and the number of lanes changes.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcRabbit;
use EventsrcRelay;
use EventsrcTest;
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

foreach my $count (3, 2, 1, 4)
{
	my $load = start_load($node, rate => 300, transactions => 300);
	usleep(200_000 + int rand 300_000);
	$node->safe_psql('postgres', qq(SELECT es_alter_relay('orders', options => '{"lanes": $count}')));
	usleep(int rand 300_000);
	terminate_relays($node);
	end_load($load);
	wait_for_relay($node, 'orders', "$SENT AND lanes = $count");
}
wait_until($node, 'SELECT count(*) FROM es_relay_lanes WHERE pid IS NOT NULL', 'each lane has a worker', '4');
check_came($node, $rabbit, 'orders', 'all lanes', least => 1000, again => 'any');
check_no_crash($node);
$node->stop;
done_testing();
