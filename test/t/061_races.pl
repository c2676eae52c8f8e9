# Races of the safe position at the end of a transaction, where isolation tests cannot look: between the commit
# record and the moment at which others see the transaction's end (a commit that waits for its synchronous
# standby stands exactly there), and between that moment and the clearing of the slot.  And appenders that are
# cancelled, terminated or killed at every stop point.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use EventsrcLoad;
use Test::More;

# Commits wait for a standby, which is not there, only in sessions that ask for it.
my $node = new_node('main', standbys => 1, conf => <<'END');
synchronous_standby_names = 'late'
synchronous_commit = local
restart_after_crash = on
END
my $has_stop_points = $node->safe_psql('postgres', q{SELECT count(*) FROM pg_settings WHERE name = 'eventsrc.test_stop_points'});
create_extension($node);
make_stores($node);
$node->safe_psql('postgres', q{SELECT es_append('Order', '1', 'First')});

my $idle = new_session($node);
$idle->query('BEGIN; SELECT pg_current_xact_id()');
my $readers = new_readers($node, stores => ['es'], count => 2);
my $other = new_session($node);
my $n = 0;

# append_beside appends in another session, whose commit waits for nothing, and returns the position.
sub append_beside { return $other->query(q{SELECT global_position FROM es_append('Order', '2', 'B} . ++$n . q{')}); }

# asleep waits until a backend sleeps as told.
sub asleep
{
	my ($pid, $event, $what) = @_;
	return wait_until($node, "SELECT $event FROM pg_stat_activity WHERE pid = $pid", $what);
}

# ended waits until a backend is gone.
sub ended
{
	my ($pid) = @_;
	return wait_until($node, "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid", 'the session ends');
}

# new_appender returns a session that appends and waits for its standby.
sub new_appender
{
	my $session = new_session($node);
	$session->query('SET synchronous_commit = on');
	return ($session, $session->pid);
}

# held checks what must hold while an appender is paused with a position: readers see nothing at or after it.
sub held
{
	my ($what, $at) = @_;
	my $beside = append_beside();
	read_pages($readers) foreach 1 .. 2;
	is_deeply([ map { $_->{last}{es} } @{ $readers->{all} } ], [ map { $at } @{ $readers->{all} } ], "$what: readers stand before its position");
	cmp_ok($node->safe_psql('postgres', 'SELECT es_safe_position()'), '<', $beside, "$what: so does the safe position");
	return $beside;
}

# end_of waits until all readers have what there is.
sub caught_up
{
	my ($what, $count) = @_;
	my @truth = events_of($node, 'es');
	is(scalar @truth, $count, "$what: there are as many events as expected") if defined $count;
	read_to_end($readers);
	check_readers($readers, $what);
	return scalar @truth;
}

# --- between the commit record and the end that others see

my $events = caught_up('at the beginning', 1);
my $last = (events_of($node, 'es'))[-1];
my $at = $readers->{all}[0]{last}{es};
is($at, $last, 'the readers have all');

my ($a, $pid) = new_appender();
my $written = $node->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
$a->start(q{SELECT es_append('Order', '1', 'Waits')});
asleep($pid, q{wait_event = 'SyncRep'}, 'a commit waits for its standby');
is($node->safe_psql('postgres', "SELECT pg_current_wal_flush_lsn() > '$written'"), 't', 'its record is on disk');
is($node->safe_psql('postgres', q{SELECT count(*) FROM es.events WHERE event_type = 'Waits'}), '0', 'its event is not visible');
held('between commit record and visibility', $at);
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
$a->result;
like($a->last_error, qr/WARNING.*synchronous replication/s, 'the wait is cancelled with a warning, the commit stands');
$events = caught_up('after the cancel', $events + 2);

# the same, terminated
$at = $readers->{all}[0]{last}{es};
$a->start(q{SELECT es_append('Order', '1', 'Terminated')});
asleep($pid, q{wait_event = 'SyncRep'}, 'a commit waits for its standby');
held('before it is terminated', $at);
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
ended($pid);
$events = caught_up('after the end of the session', $events + 2);

# the same, killed: the record was on disk, so the event is there after the restart
($a, $pid) = new_appender();
$at = $readers->{all}[0]{last}{es};
$a->start(q{SELECT es_append('Order', '1', 'Killed')});
asleep($pid, q{wait_event = 'SyncRep'}, 'a commit waits for its standby');
held('before it is killed', $at);
ok(kill_process($node, $pid), 'it is killed, and the server is back');
$other = new_session($node);
reconnect_readers($readers, $node);
$events = caught_up('after the crash', $events + 2);

# --- between the end that others see and the clearing of the slot; and every other point

my $keeper = new_session($node);
# Needs a build with stop points.
SKIP:
{
	skip 'this build has no stop points', 1 unless $has_stop_points;

	foreach my $point ('lower bound read', 'published', 'position taken', 'visible')
	{
		foreach my $end ($point eq 'visible' ? ('COMMIT', 'ROLLBACK') : ('release', 'cancel', 'terminate'))
		{
			my $what = "$point, $end";
			$at = $readers->{all}[0]{last}{es};
			my $a = new_session($node);
			my $pid = $a->pid;
			$a->query("SET eventsrc.test_stop_points = '$point'");
			$keeper->query("SELECT pg_advisory_lock(hashtext('$point'))");
			if ($point eq 'visible')
			{
				$a->query(q{BEGIN; SELECT es_append('Order', '1', 'Paused')});
				$a->start($end);
				asleep($pid, q{wait_event_type = 'Extension'}, "$what: the backend pauses");
				is($node->safe_psql('postgres', "SELECT count(*) FROM es.events WHERE global_position > $at"),
					$end eq 'COMMIT' ? 1 : 0, "$what: others see how it ended");
				held($what, $at);
			}
			else
			{
				$a->start(q{SELECT es_append('Order', '1', 'Paused')});
				asleep($pid, q{wait_event_type = 'Lock'}, "$what: the backend pauses");
				if ($point eq 'lower bound read')
				{
					append_beside();
					read_pages($readers);
					cmp_ok($readers->{all}[0]{last}{es}, '>', $at, "$what: nobody is held back");
				}
				else
				{
					held($what, $at);
				}
			}
			$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)") if $end eq 'cancel';
			$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)") if $end eq 'terminate';
			ended($pid) if $end eq 'terminate';
			$keeper->query('SELECT pg_advisory_unlock_all()') if $end ne 'cancel' && $end ne 'terminate';
			if ($end ne 'terminate')
			{
				$a->result;
				like($a->last_error, $end eq 'cancel' ? qr/57014/ : qr/^$/, "$what: as it should end");
				$a->quit;
			}
			$keeper->query('SELECT pg_advisory_unlock_all()');
			$events = caught_up($what, $events + ($end eq 'COMMIT' || $end eq 'release' ? 2 : 1));
		}
	}

	# the server is killed under an appender between its position and its insert
	my $a = new_session($node);
	my $pid = $a->pid;
	$at = $readers->{all}[0]{last}{es};
	$keeper->query(q{SELECT pg_advisory_lock(hashtext('position taken'))});
	$a->query(q{SET eventsrc.test_stop_points = 'position taken'});
	$a->start(q{SELECT es_append('Order', '1', 'Paused')});
	asleep($pid, q{wait_event_type = 'Lock'}, 'the backend pauses');
	held('before the server is killed', $at);
	$node->stop('immediate');
	$node->start;
	$other = new_session($node);
	reconnect_readers($readers, $node);
	$events = caught_up('after the server was killed', $events + 1);
}

# --- a standby that comes late ends the wait

($a, $pid) = new_appender();
$at = $readers->{all}[0]{last}{es};
$a->start(q{SELECT version FROM es_append('Order', '1', 'Answered')});
asleep($pid, q{wait_event = 'SyncRep'}, 'a commit waits for its standby');
held('before there is a standby', $at);
my $standby = add_standby($node, name => 'late');
like($a->result, qr/^\d+$/, 'the standby lets it go');
is($a->last_error, '', 'without a warning');
$events = caught_up('with a standby', $events + 2);
$at = $readers->{all}[0]{last}{es};
wait_until($standby, "SELECT es_safe_position() >= $at", 'the standby has it');
is($standby->safe_psql('postgres', 'SELECT string_agg(global_position::text, chr(10)) FROM es_read_all(0, NULL)'),
	join("\n", events_of($node, 'es')), 'all of it');
check_streams($node, 'at the end');
$_->quit foreach $a, $other;
quit_readers($readers);
$standby->stop;
$node->stop;
done_testing();
