# Crash recovery: the server is stopped in immediate mode while several clients append.  What was
# acknowledged is there afterwards, with the version and the position that the client was told.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use EventsrcLoad;
use Test::More;

my $rounds = 3 * ($ENV{EVENTSRC_TORTURE} || 1);
my $node = new_node('main', conf => "log_statement = none\nrestart_after_crash = on\n");
create_extension($node);
make_stores($node);

my @promised;
my $highest;
foreach my $round (1 .. $rounds)
{
	my $clients = start_clients($node, name => "r$round");
	# the moment: after so many answers
	my $moment = 600 + int(rand(2000));
	my $end = time + $EventsrcTest::PATIENCE;
	select(undef, undef, undef, 0.01) while lines_in(@{ $clients->{files} }) < $moment && time < $end;
	$node->stop('immediate');
	my @round = end_clients($clients);
	cmp_ok(scalar @round, '>', 100, "round $round: @{[ scalar @round ]} appends were acknowledged before the server stopped");
	push @promised, @round;
	$node->start;

	check_acknowledged($node, "after crash $round", @promised);
	$highest = $node->safe_psql('postgres',
		'SELECT max(global_position) FROM (SELECT global_position FROM es.events UNION ALL SELECT global_position FROM "Second ""store""".events) e');
	check_streams($node, "after crash $round");
	check_indexes($node, "after crash $round");

	# and on it goes
	my $before = $node->safe_psql('postgres', q{SELECT es_stream_version('Order', 'o1')});
	my ($version, $position) = split /\|/,
	  $node->safe_psql('postgres', q{SELECT * FROM es_append('Order', 'o1', 'After', event_id => 'after} . $round . q{')});
	is($version, $before + 1, "round $round: the next version follows");
	cmp_ok($position, '>', $highest, "round $round: the next position is above all old ones");
	is($node->safe_psql('postgres', 'SELECT count(*), max(global_position) FROM es_read_all(0, NULL)'),
		$node->safe_psql('postgres', 'SELECT count(*), max(global_position) FROM es.events'),
		"round $round: all can be read in order");
}

# The same for a server that dies by itself: a backend's death resets shared memory under the others.
my $victim = new_session($node);
$victim->query(q{BEGIN; SELECT es_append('Order', 'o1', 'Never')});
my $last = $node->safe_psql('postgres', 'SELECT max(global_position) FROM es.events');
ok(kill_process($node, $victim->pid), 'the server is back after a backend was killed');
$victim->quit;
my ($version, $position) = split /\|/, $node->safe_psql('postgres', q{SELECT * FROM es_append('Order', 'o1', 'After')});
cmp_ok($position, '>', $last, 'positions go on above the old ones');
is($node->safe_psql('postgres', q{SELECT count(*) FROM es_read_stream('Order', 'o1') WHERE event_type = 'Never'}),
	'0', 'what was not committed is not there');
is($node->safe_psql('postgres', "SELECT count(*) FROM es_read_all($last)"), '1', 'nobody holds the safe position back');
check_streams($node, 'after a backend was killed');
$node->stop;

done_testing();
