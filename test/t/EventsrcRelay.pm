# EventsrcRelay: what the tests of relays to real brokers share: events that stream, a network that fails, mishaps, a
# standby that takes over, and the comparison of what came with what is committed.
#
#     use EventsrcRelay;
#
#     my $proxy = new_proxy($broker->address);       # stands before a broker
#     $proxy->port;  $proxy->tell('drop');           # see tcp_proxy.py
#
#     my $load = start_load($node);                  # sessions that append and end by themselves; see below
#     end_load($load);                               # waits for that
#     terminate_relays($node);
#
#     my %mishaps = common_mishaps($node, $broker, $proxy);
#     suffer($node, \%mishaps);                      # each once, while events stream to relay "orders"
#
#     my $standby = add_synchronous_standby($primary);
#     take_over($standby, $primary);                 # which goes on running
#     release_commits($primary);                     # of those that wait for its standby
#
#     check_came($node, $broker, 'topic', 'what it is', ...);    # everything that is committed came; see below
package EventsrcRelay;

use strict;
use warnings;
use Exporter 'import';
use File::Basename qw(dirname);
use IPC::Run ();
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use EventsrcTest;

our @EXPORT = qw(new_proxy start_load end_load terminate_relays common_mishaps suffer
  add_synchronous_standby take_over release_commits check_came $SENT);

# The condition on a relay's row in es_relays that it has sent all that there is.
our $SENT = q{lag_events = 0 AND state = 'running'};

my $here = dirname(__FILE__);

# new_proxy starts a proxy before an address, which may be told later.
sub new_proxy
{
	my ($address) = @_;
	my $self = bless { in => '', out => '', err => '' }, 'EventsrcRelay::Proxy';
	# Debian's python3
	$self->{run} = IPC::Run::start([ '/usr/bin/python3', "$here/tcp_proxy.py", $address // () ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err});
	$self->{port} = $self->answer + 0;
	return $self;
}

# start_load starts two sessions that append orders, a tenth of it rolled back, and end by themselves, or with the
# server.  It returns when so many events of theirs are there.
#     options: events => 1, streams => 20, rate => 400 transactions a second, transactions => 700 each
sub start_load
{
	my ($node, %option) = @_;
	my $script = PostgreSQL::Test::Utils::tempdir('load') . '/load.sql';
	PostgreSQL::Test::Utils::append_to_file($script, <<"END");
\\set stream random(1, @{[ $option{streams} // 20 ]})
\\set fate random(1, 10)
BEGIN;
SELECT es_append('Order', (:stream)::text, 'Placed', '{"n": 1}');
\\if :fate = 1
SELECT es_append('Order', (:stream)::text, 'RolledBack');
ROLLBACK;
\\else
COMMIT;
\\endif
END
	my $before = $node->safe_psql('postgres', 'SELECT coalesce(max(global_position), 0) FROM es.events');
	my $load = IPC::Run::start(
		[
			'pgbench', '-n', '-c', '2', '-j', '1', '-R', $option{rate} // 400, '-t', $option{transactions} // 700,
			'-f', $script, '-h', $node->host, '-p', $node->port, 'postgres'
		],
		'<', \undef, '>', '/dev/null', '2>', '/dev/null');
	$node->poll_query_until('postgres', "SELECT count(*) >= @{[ $option{events} // 1 ]} FROM es.events WHERE global_position > $before")
	  or die 'too few events come';
	return $load;
}

# end_load waits for its end.
sub end_load
{
	my ($load) = @_;
	eval { $load->finish; 1 } or $load->kill_kill;
	return;
}

# terminate_relays terminates the workers of all relays.
sub terminate_relays
{
	my ($node) = @_;
	$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'eventsrc relay'});
	return;
}

# common_mishaps returns what can happen to a server, its broker, and the proxy between them: {what => sub that does it}.
sub common_mishaps
{
	my ($node, $broker, $proxy) = @_;
	return (
		'the broker is killed' => sub {
			$broker->kill9;
			$broker->start;
		},
		'the worker is terminated' => sub { terminate_relays($node) },
		'the server crashes' => sub {
			$node->stop('immediate');
			$node->start;
		},
		'the network hangs' => sub {
			my $now = $node->safe_psql('postgres', 'SELECT now()');
			$proxy->tell('drop');
			wait_for_relay($node, 'orders', "last_error_at > '$now'");
			$proxy->tell('cut');
		},
		'connections break' => sub {
			for (1 .. 3)
			{
				$proxy->tell('connected');
				$proxy->tell('cut');
			}
		},
		'connections are half closed' => sub { $proxy->tell('half') });
}

# suffer lets mishaps happen, in any order, each at some moment while events stream, and waits each time until relay
# "orders" has sent all.
#     options: resume => 1 asks it not to wait for its next attempt
sub suffer
{
	my ($node, $mishaps, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $mishap (shuffle(sort keys %$mishaps))
	{
		my $load = start_load($node, events => 200 + int rand 400);
		$mishaps->{$mishap}->();
		end_load($load);
		$node->safe_psql('postgres', q{SELECT es_resume_relay('orders')}) if $option{resume};
		wait_for_relay($node, 'orders', $SENT);
		note($mishap);
	}
	return;
}

# add_synchronous_standby makes a standby of a server, for which its commits wait from then on.
sub add_synchronous_standby
{
	my ($primary) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $standby = add_standby($primary);
	alter_system($primary, synchronous_standby_names => 'standby', synchronous_commit => 'on');
	wait_until($primary, q{SELECT sync_state FROM pg_stat_replication}, 'there is a synchronous standby', 'sync');
	return $standby;
}

# take_over promotes a standby while events stream on the primary, which goes on running; what it cannot replicate is
# not acknowledged.  A relay goes on from the new primary.
#     options: relay => 'orders', condition => $SENT
sub take_over
{
	my ($standby, $primary, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $load = start_load($primary, events => 300);
	alter_system($standby, synchronous_standby_names => '');
	promote_standby($standby);
	wait_for_relay($standby, $option{relay} // 'orders', $option{condition} // $SENT);
	$load->kill_kill;
	return;
}

# release_commits lets go the commits that wait for a standby, which hold the safe position back.
sub release_commits
{
	my ($primary) = @_;
	alter_system($primary, synchronous_commit => 'local', synchronous_standby_names => '');
	return;
}

# committed_events returns what is committed of a store's aggregate type, as "id version event-id position" each.
sub committed_events
{
	my ($node, %option) = @_;
	my $store = $option{store} // 'es';
	my $from = $option{from} // 0;
	return split /\n/, $node->safe_psql('postgres', <<"END");
SELECT aggregate_id || ' ' || version || ' ' || event_id || ' ' || global_position
FROM "$store".events WHERE aggregate_type = 'Order' AND global_position > $from
END
}

# check_came compares what consumers see of a topic or queue with the orders that are committed: each came, once, and
# nothing else did, and each stream's events came in order.
#     options: store => 'es', least => number of events that there must be
#     from => position: only events after it; skip => {partition => offset}: only messages from there on
#     partitions => 1: in each partition events are in the order of their positions, too
#     again => 'any': messages may come again; the first time they come in order
#     again => 'in order': messages may come again, in order from the first that is repeated on
#     stream => 1: of a stream queue
sub check_came
{
	my ($node, $broker, $topic, $what, %option) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $again = $option{again} // '';
	my $skip = $option{skip} // {};
	my @expected = committed_events($node, %option);
	my %expected = map { $_ => 1 } @expected;
	my ($end, @messages, %seen, @missing) = time + $EventsrcTest::PATIENCE;
	# a broker may show what it has confirmed a little later
	while (1)
	{
		@messages = grep { ($_->{type} // 'Order') eq 'Order' && ($_->{offset} // 0) >= ($skip->{ $_->{partition} // 0 } // 0) }
		  $broker->brief($topic, $option{stream} ? (stream => 1) : ());
		$_->{line} = join ' ', @$_{qw(key version id position)} foreach @messages;
		%seen = map { $_->{line} => 1 } @messages;
		@missing = grep { !$seen{$_} } @expected;
		last if !@missing || time > $end;
		usleep(300_000);
	}
	my (%times, %last, %last_position, @twice, @unknown, @order);
	foreach my $message (@messages)
	{
		my ($key, $version, $position, $partition) = @$message{qw(key version position partition)};
		my $before = $last{$key} // ($option{from} ? $version - 1 : 0);
		my $repeated = $times{ $message->{line} }++;
		push @unknown, $message->{line} if !$expected{ $message->{line} };
		push @twice, $message->{line} if $repeated;
		next if $repeated && $again eq 'any';
		push @order, "$key: $version after $before" if $version != $before + 1 && !($version <= $before && $again eq 'in order');
		push @order, "partition $partition: $position after $last_position{$partition}"
		  if $option{partitions} && $position <= ($last_position{$partition} // 0);
		$last{$key} = $version;
		$last_position{$partition} = $position if $option{partitions};
	}
	cmp_ok(scalar @expected, '>', $option{least}, sprintf('%s: %d events are committed', $what, scalar @expected)) if $option{least};
	is_deeply([ @missing[ 0 .. ($#missing > 4 ? 4 : $#missing) ] ], [], "$what: none is missing");
	is_deeply(\@twice, [], "$what: none came twice") if !$again;
	is_deeply(\@unknown, [], "$what: nothing came that is not committed");
	is_deeply(\@order, [], "$what: the order of each stream is kept" . ($option{partitions} ? ', and of each partition' : ''));
	note(sprintf '%s: %d messages, %d of them again', $what, scalar @messages, scalar @twice);
	return;
}

package EventsrcRelay::Proxy;

# answer waits for a line.
sub answer
{
	my ($self) = @_;
	$self->{run}->pump until $self->{out} =~ s/^(.*)\n//;
	return $1;
}

# port returns where it listens.
sub port { return $_[0]{port}; }

# tell gives it a command.
sub tell
{
	my ($self, $command) = @_;
	$self->{in} .= "$command\n";
	$self->answer eq 'ok' or die "proxy: $self->{err}";
	return;
}

# DESTROY ends it.
sub DESTROY
{
	my ($self) = @_;
	local ($?, $@);
	eval { $self->{run}->kill_kill };
	return;
}

1;
