# A primary with a synchronous standby is lost under load.  Readers of the primary go over to the promoted standby,
# readers of the standby stay: all see every event once and in order, as nothing is visible on the primary before
# the standby has it.  Nothing that was acknowledged is lost.
#
# EVENTSRC_TORTURE=n makes it n times as long.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use EventsrcLoad;
use Test::More;

my $torture = $ENV{EVENTSRC_TORTURE} || 1;
my @promised;
my $primary = new_node('server0', standbys => 1, conf => <<'END');
log_statement = none
max_standby_streaming_delay = -1
synchronous_standby_names = '*'
synchronous_commit = local
END
create_extension($primary);
make_stores($primary);
my $movers = new_readers($primary);

foreach my $round (1 .. $torture)
{
	my $standby = add_standby($primary, name => "standby$round");
	wait_until($primary, q{SELECT sync_state FROM pg_stat_replication}, 'the standby is synchronous', 'sync');
	$primary->safe_psql('postgres', 'ALTER DATABASE postgres SET synchronous_commit = on');
	my $stayers = new_readers($standby);

	my $idle = new_session($primary);
	$idle->query('BEGIN; SELECT pg_current_xact_id()');
	my $clients = start_clients($primary, name => "r$round");
	my $moment = 800 + int(rand(800));
	my $end = time + $EventsrcTest::PATIENCE;
	while (lines_in(@{ $clients->{files} }) < $moment && time < $end)
	{
		last if read_pages($movers) < 0 || read_pages($stayers) < 0;
	}
	$primary->stop('immediate');
	my @round = end_clients($clients);
	cmp_ok(scalar @round, '>', 100, "@{[ scalar @round ]} appends were acknowledged");
	push @promised, @round;

	read_pages($stayers);
	# the new primary has no standby yet
	$standby->safe_psql('postgres', 'ALTER SYSTEM SET synchronous_commit = local');
	promote_standby($standby);
	$standby->safe_psql('postgres', 'SET synchronous_commit = local; ALTER DATABASE postgres RESET synchronous_commit');
	reconnect_readers($movers, $standby);
	check_acknowledged($standby, 'after the promotion', @promised);
	my $writers = start_writers($standby, clients => 4, transactions => 25);
	while (writing($writers))
	{
		last if read_pages($movers) < 0 || read_pages($stayers) < 0;
	}
	finish_writers($writers);
	foreach my $readers ($movers, $stayers)
	{
		read_to_end($readers);
		check_readers($readers, $readers == $movers ? 'having gone over' : 'having stayed');
	}
	check_streams($standby, 'after the promotion');
	quit_readers($stayers);
	$primary->clean_node;
	$primary = $standby;
}
check_indexes($primary, 'at the end');
quit_readers($movers);
$primary->stop;
done_testing();
