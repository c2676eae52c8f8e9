# Writers and readers by position through crash after crash: backends killed, the server stopped at once, clients
# cut off.  Whatever happens, a reader that goes on from where it stood sees every committed event once and in
# order, versions are dense, and nothing that was acknowledged is lost.
#
# EVENTSRC_TORTURE=n makes it n times as long.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use EventsrcLoad;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = 4 * ($ENV{EVENTSRC_TORTURE} || 1);
my $node = new_node('main', conf => "log_statement = none\nrestart_after_crash = on\n");
create_extension($node);
make_stores($node);
my $readers = new_readers($node, count => 4);
my @promised;

foreach my $round (1 .. $rounds)
{
	my $blow = $round % 2 ? 'a backend is killed' : 'the server is stopped at once';
	my $when = "in round $round, $blow";

	# an idle transaction with a transaction id holds nobody back
	my $idle = new_session($node);
	$idle->query('BEGIN; SELECT pg_current_xact_id()');
	my $clients = start_clients($node, name => "r$round", clients => 5);
	my $moment = 300 + int(rand(1500));
	my $end = time + $EventsrcTest::PATIENCE;
	my $cut = 0;
	while (lines_in(@{ $clients->{files} }) < $moment && time < $end)
	{
		last if read_pages($readers) < 0;
		# one client is cut off, another one's backend is told to go
		if (!$cut && lines_in(@{ $clients->{files} }) > 100)
		{
			$clients->{runs}[0]->signal('KILL');
			$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'client' ORDER BY pid LIMIT 1});
			$cut = 1;
		}
	}
	if ($round % 2)
	{
		# one that has appended, if there is one just now; a session may end before it can be killed
		my $killed = 0;
		my $last = time + $EventsrcTest::PATIENCE;
		while (!$killed && time < $last)
		{
			my ($victim) = split /\n/, $node->safe_psql('postgres',
				q{SELECT pid FROM pg_stat_activity WHERE application_name = 'client' ORDER BY backend_xid IS NULL, random()});
			$killed = $victim
			  && kill_process($node, $victim, meanwhile => sub { 1 while kill(0, $victim) && read_pages($readers) >= 0 });
		}
		ok($killed, "the server comes back $when");
		cmp_ok(read_pages($readers), '<', 0, "and the readers have lost it $when");
	}
	else
	{
		$node->stop('immediate');
		$node->start;
	}
	my @round = end_clients($clients);
	cmp_ok(scalar @round, '>', 50, "@{[ scalar @round ]} appends were acknowledged $when");
	push @promised, @round;

	# the readers go on beside new appends
	reconnect_readers($readers, $node);
	my $writers = start_writers($node, clients => 4, transactions => 10);
	while (writing($writers))
	{
		last if read_pages($readers) < 0;
	}
	finish_writers($writers);
	read_to_end($readers);
	check_readers($readers, $when);
	check_acknowledged($node, $when, @promised);
	check_streams($node, $when);
}
check_indexes($node, 'at the end');
quit_readers($readers);
$node->stop;
done_testing();
