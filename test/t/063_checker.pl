# The checker can fail: with the registry of undecided positions off, which only a build with stop points allows,
# readers do skip events, and the checks of the other tests find it.  The amount of work is bounded.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use EventsrcLoad;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', conf => "log_statement = none\n");
plan skip_all => 'this build has no stop points'
  if $node->safe_psql('postgres', q{SELECT count(*) FROM pg_settings WHERE name = 'eventsrc.test_registry'}) eq '0';
create_extension($node);
make_stores($node);
my $readers = new_readers($node);

# work lets writers and readers loose for so many transactions, and returns how many events were skipped.
sub work
{
	my ($clients, $transactions) = @_;
	my $writers = start_writers($node, clients => $clients, transactions => $transactions);
	while (writing($writers))
	{
		last if read_pages($readers) < 0;
	}
	finish_writers($writers);
	my $skipped = 0;
	foreach my $store (@STORES)
	{
		my @truth = events_of($node, $store);
		$skipped += skipped($_, $store, @truth) foreach @{ $readers->{all} };
	}
	return $skipped;
}

is(work(8, 25), 0, 'nothing is skipped with the registry on');
read_to_end($readers);
check_readers($readers, 'with the registry on');

$node->safe_psql('postgres', 'ALTER DATABASE postgres SET eventsrc.test_registry = off');
my ($skipped, $transactions) = (0, 0);
while (!$skipped && $transactions < 20_000)
{
	$skipped = work(8, 25);
	$transactions += 8 * 25;
}
cmp_ok($skipped, '>', 0, "with the registry off the checker finds events skipped: $skipped in $transactions transactions");

quit_readers($readers);
$node->stop;
done_testing();
