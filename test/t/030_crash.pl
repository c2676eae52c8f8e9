# Crash recovery: the server is stopped in immediate mode while several clients append.  What was
# acknowledged is there afterwards, with the version and the position that the client was told.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use EventsrcLoad;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = 3 * ($ENV{EVENTSRC_TORTURE} || 1);
my $clients = 4;
my $node = new_node('main', conf => "log_statement = none\nrestart_after_crash = on\n");
create_extension($node);
make_stores($node);

my $folder = PostgreSQL::Test::Utils::tempdir('clients');

# statements of one client in one round: an append in a transaction of its own, many events at once, and
# two streams in one transaction.  Each prints, when it is done, what the client may rely on.
sub write_script
{
	my ($file, $name) = @_;
	my $script = '';
	foreach my $i (1 .. 4000)
	{
		my $stream = 'o' . (1 + int(rand(5)));
		my $id = "$name.$i";
		if ($i % 5 == 0)
		{
			$script .= "SELECT 'es', 'Order', '$stream', version, global_position, '$id.c' FROM es_append_events('Order',"
			  . " '$stream', '{A,B,C}', ARRAY['{}', '{\"n\": $i}', '{}']::jsonb[], event_ids => '{$id.a,$id.b,$id.c}');\n";
		}
		elsif ($i % 5 == 1)
		{
			$script .= "BEGIN;\nSELECT 'es', 'Order', '$stream', version, global_position, '$id.a'"
			  . " FROM es_append('Order', '$stream', 'Both', event_id => '$id.a');\n"
			  . "SELECT '$STORES[1]', 'Shelf', '$stream', version, global_position, '$id.b'"
			  . " FROM es_append('Shelf', '$stream', 'Both', event_id => '$id.b', store => '$STORES[1]');\nCOMMIT;\n";
		}
		else
		{
			$script .= "SELECT 'es', 'Order', '$stream', version, global_position, '$id'"
			  . " FROM es_append('Order', '$stream', 'One', '{\"n\": $i}', event_id => '$id');\n";
		}
	}
	append_to_file($file, $script);
	return;
}

my @promised;
my $highest;
foreach my $round (1 .. $rounds)
{
	my (@runs, @files);
	foreach my $client (1 .. $clients)
	{
		my $name = "r$round.c$client";
		write_script("$folder/$name.sql", $name);
		append_to_file("$folder/$name.out", '');
		push @files, "$folder/$name.out";
		push @runs, IPC::Run::start(
			[ 'psql', '-X', '-A', '-t', '-d', $node->connstr('postgres'), '-f', "$folder/$name.sql" ],
			'<', \undef, '>', "$folder/$name.out", '2>', "$folder/$name.err");
	}
	# the moment: after so many answers
	my $moment = 200 + int(rand(2500));
	my $end = time + $EventsrcTest::PATIENCE;
	select(undef, undef, undef, 0.01) while lines_in(@files) < $moment && time < $end;
	$node->stop('immediate');
	$_->finish foreach @runs;

	my @round = map { acknowledged($_) } @files;
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
