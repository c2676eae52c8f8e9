# eventsrc.read_durable: with synchronous_commit off a crash undoes what was visible, but nothing that a reader
# was given who asked for what is durable.  Whoever would flush the WAL by itself is stopped (SIGSTOP), so what
# no reader flushes is lost.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use Test::More;

my $node = new_node('main', conf => "synchronous_commit = off\nshared_buffers = 64MB\nwal_buffers = 16MB\n"
	. "wal_writer_delay = 10s\nwal_writer_flush_after = 1GB\nautovacuum = off\ncheckpoint_timeout = 1h\n");
create_extension($node);
$node->safe_psql('postgres', 'SELECT es_create_store()');

# by what a reader learns of events
my %reader = (
	es_read_all => q{SELECT count(*) FROM es_read_all(0, NULL) WHERE event_type = 'Read %d'},
	es_safe_position => q{SELECT count(*) FROM es.events WHERE event_type = 'Read %d' AND global_position <= es_safe_position()},
	es_wait => q{SELECT count(*) FROM es.events WHERE event_type = 'Read %d' AND global_position <= (SELECT es_wait(0))});

# append makes ten events in transactions of their own.
sub append
{
	my ($type) = @_;
	$node->safe_psql('postgres', join "\n", map { "SELECT version FROM es_append('Order', '$_', '$type');" } 1 .. 10);
	return;
}

my ($round, $lost) = (0, 0);
foreach my $name (sort keys %reader)
{
	$round++;
	my $query = sprintf $reader{$name}, $round;
	append('First');
	wait_until($node, 'SELECT position = es_safe_position() FROM eventsrc.published_position', "$name: workers are idle");
	$node->safe_psql('postgres', 'CHECKPOINT');
	my @writers = split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type <> 'client backend'});
	cmp_ok(scalar @writers, '>=', 5, "$name: there are processes to stop");
	kill 'STOP', @writers;

	append("Read $round");
	is($node->safe_psql('postgres', "SET eventsrc.read_durable = local; $query"), '10', "$name: a reader of what is durable sees all");
	append("Seen $round");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM es_read_all(0, NULL) WHERE event_type = 'Seen } . $round . q{'}),
		'10', "$name: a reader of what is visible sees what came later");
	$node->stop('immediate');
	$node->start;
	is($node->safe_psql('postgres', "SELECT count(*) FROM es.events WHERE event_type = 'Read $round'"),
		'10', "$name: nothing that the former saw is lost");
	$lost += 10 - $node->safe_psql('postgres', "SELECT count(*) FROM es.events WHERE event_type = 'Seen $round'");
}
cmp_ok($lost, '>', 0, "the latter saw $lost events that a crash undid");
$node->stop;

done_testing();
