# EventsrcTest: what the TAP tests of eventsrc share.  It hides how PostgreSQL::Test differs between
# PostgreSQL 15, 17 and 18, and runs Apache Kafka.
#
#     use FindBin;
#     use lib $FindBin::RealBin;
#     use EventsrcTest;
#
#     my $node = new_node('main');                   # initialised, configured, started
#     create_extension($node);                       # in the database postgres; or name another
#     wait_until($node, 'SELECT ...', 'what it is'); # until the query gives t; fails the test after 3 minutes
#     wait_for_log($node, qr/.../, 'what it is');    # until the server's log has it
#     kill_process($node, $pid);                     # as a crash would; the server has restarted when it returns
#     check_no_crash($node, ...);                    # no process of them crashed
#     check_no_password($node, 'secret');            # its log shows it only in statements
#     is(sqlstate_of($node, 'SELECT ...'), 'VE001', 'a conflict is refused');
#
#     my $standby = add_standby($node);              # streams, under the name standby
#     promote_standby($standby);                     # and waits until it takes appends
#     alter_system($node, synchronous_commit => 'on');    # and waits until new sessions have it
#
#     my $session = new_session($node);              # a psql that stays open
#     $session->query('BEGIN');                      # returns what the statements print
#     $session->start('SELECT pg_sleep(1)');         # does not wait ...
#     $session->result;                              # ... this does
#     $session->quit;
#
#     append_events($node, 100);                     # one transaction an event; see below for options
#     wait_for_relay($node, 'documents', 'lag_events = 0');    # a condition on its row in es_relays
#     my $pid = relay_column($node, 'documents', 'pid');
#
#     my $kafka = new_kafka();                       # a real broker; needs test/setup/install.sh kafka
#     $kafka->address;  $kafka->stop;  $kafka->start;  $kafka->kill9;
#     my @messages = $kafka->messages('topic');      # see below
#     $kafka->wait_for_messages('topic', 100);
package EventsrcTest;

use strict;
use warnings;
use Exporter 'import';
use File::Basename qw(dirname);
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(new_node create_extension wait_until wait_for_log kill_process check_no_crash check_no_password
  sqlstate_of add_standby promote_standby alter_system new_session append_events relay_column wait_for_relay new_kafka);

# How long to wait for what should come soon, in seconds.
our $PATIENCE = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 180;

# new_node makes, configures and starts a cluster with eventsrc loaded.
#     options: start => 0 only makes it; preload => '' does not load eventsrc; conf => 'more lines';
#     standbys => 1 lets it have streaming standbys; further ones go to init().
sub new_node
{
	my ($name, %option) = @_;
	my $start = delete $option{start} // 1;
	my $preload = delete $option{preload} // 'eventsrc';
	my $conf = delete $option{conf} // '';
	my $standbys = delete $option{standbys};

	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(
		allows_streaming => $standbys ? 1 : 0,
		extra => [ '--locale=C.UTF-8', '--encoding=UTF8' ],
		%option);
	$node->append_conf('postgresql.conf', <<"END");
shared_preload_libraries = '$preload'
max_worker_processes = 20
wal_level = logical
max_prepared_transactions = 5
log_line_prefix = '%m [%p] %b %q%a '
$conf
END
	$node->start if $start;
	return $node;
}

# create_extension makes the extension in a database, which it makes too if need be.
sub create_extension
{
	my ($node, $database) = @_;
	$database //= 'postgres';
	$node->safe_psql('postgres', qq{CREATE DATABASE "$database"})
	  if $node->safe_psql('postgres', qq{SELECT count(*) FROM pg_database WHERE datname = '$database'}) eq '0';
	$node->safe_psql($database, 'CREATE EXTENSION eventsrc');
	return;
}

# wait_until waits for a query to give what is expected (t unless told), and fails the test if it never does.
sub wait_until
{
	my ($node, $query, $what, $expected, $database) = @_;
	$expected //= 't';
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ok = $node->poll_query_until($database // 'postgres', $query, $expected);
	ok($ok, $what // "waited for $query");
	return $ok;
}

# wait_for_log waits for a server's log to have what is expected, from an offset on (the beginning unless told), and
# fails the test if it never does.
sub wait_for_log
{
	my ($node, $expected, $what, $offset) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ok = eval { $node->wait_for_log($expected, $offset // 0) };
	ok(defined $ok, $what) or diag($@);
	return defined $ok;
}

# kill_process kills a process of a server, which has restart_after_crash, and waits until the server has ended all
# others, started anew and takes connections.  Returns false if the process ended by itself before.
#     meanwhile => what to do between the kill and the wait
sub kill_process
{
	my ($node, $pid, %option) = @_;
	my $offset = -s $node->logfile;
	my $end = time + $PATIENCE;
	kill 'KILL', $pid or return 0;
	$option{meanwhile}->() if $option{meanwhile};
	# Once the postmaster has fetched the end of its child it logs how that died, before it takes the next connection.
	# Until then it may well serve queries.  A psql that is refused may leave before it is handed its query, which ends
	# the test; pg_isready is handed none.
	usleep(10_000) while kill(0, $pid) && time < $end;
	$node->run_log([ 'pg_isready', '-q' ]);
	return 0 if PostgreSQL::Test::Utils::slurp_file($node->logfile, $offset) !~ /\(PID $pid\) was terminated by signal 9/;
	$node->wait_for_log(qr/all server processes terminated; reinitializing.*ready to accept connections/s, $offset);
	return $node->poll_query_until('postgres', 'SELECT true');
}

# check_no_crash checks that no process of some servers crashed.
sub check_no_crash
{
	my (@nodes) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	unlike(PostgreSQL::Test::Utils::slurp_file($_->logfile), qr/PANIC|terminated by signal|TRAP/, 'no process crashed')
	  foreach @nodes;
	return;
}

# check_no_password checks that a server's log shows a password nowhere but in the statements that set it.
sub check_no_password
{
	my ($node, $password) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
	$log =~ s/^.*(?:statement|STATEMENT):.*(?:\n\t.*)*//mg;
	unlike($log, qr/\Q$password\E/, 'no password is in the log');
	return;
}

# add_standby makes a streaming standby of a server, whose name is also that under which it streams, and starts it.
#     options: name => 'standby', start => 0 only makes it
sub add_standby
{
	my ($primary, %option) = @_;
	my $name = $option{name} // 'standby';
	$primary->backup($name);
	my $standby = PostgreSQL::Test::Cluster->new($name);
	$standby->init_from_backup($primary, $name, has_streaming => 1);
	$standby->append_conf('postgresql.conf', "primary_conninfo = '@{[ $primary->connstr ]} application_name=$name'");
	$standby->start if $option{start} // 1;
	return $standby;
}

# promote_standby promotes a standby and waits until it is none any more.
sub promote_standby
{
	my ($standby) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$standby->promote;
	return wait_until($standby, 'SELECT NOT pg_is_in_recovery()', 'the standby is promoted');
}

# alter_system changes settings of a server and waits until new sessions have them.
sub alter_system
{
	my ($node, %settings) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET $_ = '$settings{$_}'") foreach sort keys %settings;
	$node->reload;
	foreach (sort keys %settings)
	{
		$node->poll_query_until('postgres', "SHOW $_", $settings{$_}) or die "$_ is not $settings{$_}";
	}
	# it is the checkpointer who tells the others for which standbys to wait, at the latest before a checkpoint
	$node->safe_psql('postgres', 'CHECKPOINT') if exists $settings{synchronous_standby_names};
	return;
}

# sqlstate_of runs statements and returns the SQLSTATE of the error, or 00000.
sub sqlstate_of
{
	my ($node, $statements, $database) = @_;
	my ($status, $out, $err) =
	  $node->psql($database // 'postgres', "\\set VERBOSITY verbose\n$statements", on_error_stop => 1);
	return '00000' if !$status;
	return $1 if $err =~ /(?:ERROR|FATAL|PANIC):\s+([0-9A-Z]{5}):/;
	return "no SQLSTATE: $err";
}

# new_session opens a psql that stays connected.
#     options: database => 'postgres', user => name
sub new_session
{
	my ($node, %option) = @_;
	my $database = $option{database} // 'postgres';
	my $connection = $node->connstr($database);
	$connection .= " user=$option{user}" if $option{user};
	my $self = bless { in => '', out => '', err => '', count => 0 }, 'EventsrcTest::Session';
	$self->{run} = IPC::Run::start(
		[ 'psql', '-X', '-A', '-t', '-q', '-v', 'VERBOSITY=verbose', '-d', $connection, '-f', '-' ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err},
		$self->{timer} = IPC::Run::timeout($PATIENCE));
	$self->query('SELECT 1') eq '1' or die "cannot connect: $self->{last_error}";
	return $self;
}

# append_events appends n events, one transaction an event, in turn to some aggregates.
#     options: store => 'es', type => 'Order', aggregates => 5, event => 'Happened',
#     each => an SQL expression for the data of event n
sub append_events
{
	my ($node, $count, %option) = @_;
	my $store = $option{store} // 'es';
	my $type = $option{type} // 'Order';
	my $aggregates = $option{aggregates} // 5;
	my $event = $option{event} // 'Happened';
	my $each = $option{each} // q{jsonb_build_object('n', n)};
	$node->safe_psql('postgres', <<"END");
SELECT format('SELECT es_append(%L, %L, %L, %L, store => %L);', '$type', n % $aggregates, '$event', $each, '$store')
FROM generate_series(1, $count) n \\gexec
END
	return;
}

# relay_column returns a column of a relay's row in es_relays.
sub relay_column
{
	my ($node, $name, $column) = @_;
	return $node->safe_psql('postgres', "SELECT $column FROM es_relays WHERE relay = '$name'");
}

# wait_for_relay waits until a condition on a relay's row in es_relays holds.  If it never does, it tells what the relays
# do and ends the test: what follows would wait in vain, too.
sub wait_for_relay
{
	my ($node, $name, $condition, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return 1
	  if wait_until($node, "SELECT EXISTS (SELECT FROM es_relays WHERE relay = '$name' AND $condition)",
		$what // "relay $name: $condition");
	my @log = grep { / eventsrc relay / } split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile);
	splice @log, 0, -20;
	die join("\n", 'the relays:',
		$node->safe_psql('postgres', 'SELECT relay, state, "position", lag_events, lanes, options, last_error_at, last_error FROM es_relays'),
		$node->safe_psql('postgres', 'SELECT relay, lane, state, "position", lag_events, pid, last_error_at, last_error FROM es_relay_lanes'),
		@log);
}

# new_kafka starts a broker of its own, which stops when the test ends.
#     options: partitions => 1 that new topics have, proxy => port of a proxy before it (see kafka.sh)
sub new_kafka
{
	my (%option) = @_;
	my $self = bless { folder => PostgreSQL::Test::Utils::tempdir('kafka') }, 'EventsrcTest::Kafka';
	local $ENV{KAFKA_PROPERTIES} = "$self->{folder}/more.properties";
	PostgreSQL::Test::Utils::append_to_file($ENV{KAFKA_PROPERTIES}, 'num.partitions=' . ($option{partitions} // 1) . "\n");
	local $ENV{KAFKA_PROXY} = $option{proxy} // '';
	$self->start;
	return $self;
}

package EventsrcTest::Session;

# query runs statements and returns what they print; errors are in last_error.
sub query
{
	my ($self, $statements) = @_;
	$self->start($statements);
	return $self->result;
}

# start sends statements without waiting.
sub start
{
	my ($self, $statements) = @_;
	my $mark = 'end-of-statements-' . ++$self->{count};
	$self->{mark} = $mark;
	$self->{out} = $self->{err} = '';
	$self->{in} .= "$statements\n;\n\\echo $mark\n\\warn $mark\n";
	$self->{timer}->start($EventsrcTest::PATIENCE);
	$self->{run}->pump_nb;
	return;
}

# result waits for what start sent and returns what it printed; its patience begins now.
sub result
{
	my ($self) = @_;
	my $mark = $self->{mark};
	$self->{timer}->start($EventsrcTest::PATIENCE);
	eval { $self->{run}->pump until $self->{out} =~ /^\Q$mark\E\n/m && $self->{err} =~ /^\Q$mark\E\n/m; 1 }
	  or die "psql gave no answer: $@ $self->{out} $self->{err}";
	$self->{timer}->reset;
	my ($out, $err) = ($self->{out}, $self->{err});
	s/^\Q$mark\E\n//m for $out, $err;
	chomp $out;
	$self->{last_error} = $err;
	return $out;
}

# last_error returns what the last statements wrote to standard error, SQLSTATEs included.
sub last_error { return $_[0]{last_error}; }

# pid returns the process id of the session's backend.
sub pid { return $_[0]->query('SELECT pg_backend_pid()'); }

# quit ends the session.
sub quit
{
	my ($self) = @_;
	return unless $self->{run};
	$self->{in} .= "\\q\n";
	$self->{timer}->start($EventsrcTest::PATIENCE);
	my $ok = eval { $self->{run}->finish };
	$self->{run}->kill_kill unless defined $ok;
	delete $self->{run};
	return;
}

package EventsrcTest::Kafka;

# control calls test/setup/kafka.sh and returns what it prints.
sub control
{
	my ($self, $act) = @_;
	my $script = File::Basename::dirname(__FILE__) . '/../setup/kafka.sh';
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'bash', $script, $act, $self->{folder} ], '<', \undef, '>', \$out, '2>', \$err)
	  or die "kafka.sh $act: $err";
	chomp $out;
	return $out;
}

# start starts the broker, after stop or kill9 at the same address and with its old data.
sub start { my ($self) = @_; $self->{address} = $self->control('up'); return; }

# stop stops the broker in good order.
sub stop { $_[0]->control('down'); return; }

# kill9 kills the broker as a crash would.
sub kill9 { $_[0]->control('kill9'); return; }

# address returns host:port, behind that to which a proxy is to connect, process the broker's process id.
sub address { return $_[0]{address}; }
sub behind { return '127.0.0.1:' . ($_[0]->file('behind') + 0); }
sub process { return $_[0]->file('pid') + 0; }

# file returns what a file in the broker's folder holds.
sub file { return PostgreSQL::Test::Utils::slurp_file("$_[0]{folder}/$_[1]"); }

# messages returns all messages of a topic (in scalar context their number), to its end now, sorted by
# partition and offset, each as
# {partition, offset, key, payload, headers => {name => value}, ts}; value is payload read as JSON, if it is.
# A topic that does not exist has none.
#     isolation => 'read_uncommitted' shows also what a producer's transaction has not committed
sub messages
{
	my ($self, $topic, %option) = @_;
	my $isolation = $option{isolation} // 'read_committed';
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run(
		[
			'timeout', $EventsrcTest::PATIENCE, 'kcat', '-C', '-q', '-e', '-J', '-b', $self->{address},
			'-t', $topic, '-o', 'beginning', '-X', "isolation.level=$isolation",
			'-X', 'allow.auto.create.topics=false'
		],
		'<', \undef, '>', \$out, '2>', \$err);
	my @messages;
	return @messages if !$ok && $err =~ /Unknown topic|unknown topic|Topic .* error/;
	die "kcat: $err" unless $ok;
	my $json = JSON::PP->new->utf8->allow_nonref;
	foreach my $line (split /\n/, $out)
	{
		my $message = $json->decode($line);
		$message->{headers} = { @{ $message->{headers} // [] } };
		$message->{value} = eval { JSON::PP->new->allow_nonref->decode($message->{payload}) };
		push @messages, $message;
	}
	@messages = sort { $a->{partition} <=> $b->{partition} || $a->{offset} <=> $b->{offset} } @messages;
	return @messages;
}

# brief returns all messages that relays sent to a topic, as messages() does, but faster, as it does not read their JSON:
# {partition, offset, key, version, id, position} each.  Keys and headers must be plain.
sub brief
{
	my ($self, $topic) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run(
		[
			'timeout', $EventsrcTest::PATIENCE, 'kcat', '-C', '-q', '-e', '-b', $self->{address}, '-t', $topic,
			'-o', 'beginning', '-X', 'isolation.level=read_committed', '-f', '%p|%o|%k|%h\n'
		],
		'<', \undef, '>', \$out, '2>', \$err)
	  or die "kcat: $err";
	my @messages;
	foreach my $line (split /\n/, $out)
	{
		my ($partition, $offset, $key, $headers) = split /\|/, $line;
		my %header = map { split /=/ } split /,/, $headers;
		push @messages,
		  {
			partition => $partition, offset => $offset, key => $key,
			version => $header{version}, id => $header{'event-id'}, position => $header{position}
		  };
	}
	@messages = sort { $a->{partition} <=> $b->{partition} || $a->{offset} <=> $b->{offset} } @messages;
	return @messages;
}

# wait_for_messages waits until a topic has at least so many messages and returns them all (in scalar context their
# number); it gives up, with what there is, after 3 minutes.  What a transaction sent can be read shortly after its
# commit is confirmed, not at once: the broker confirms it first, and marks it in the partitions then.
sub wait_for_messages
{
	my ($self, $topic, $count, %option) = @_;
	my $end = Time::HiRes::time() + $EventsrcTest::PATIENCE;
	my @messages;
	while (1)
	{
		@messages = eval { $self->messages($topic, %option) };
		return @messages if @messages >= $count || Time::HiRes::time() > $end;
		Time::HiRes::usleep(300_000);
	}
}

# produce writes messages to a topic, as another application would: [key, payload, headers] each, the headers, if any,
# as {name => value}.
sub produce
{
	my ($self, $topic, @messages) = @_;
	foreach my $message (@messages)
	{
		my ($key, $payload, $headers) = @$message;
		my ($in, $err) = ("$key\t$payload\n", '');
		IPC::Run::run(
			[ 'kcat', '-P', '-b', $self->{address}, '-t', $topic, '-K', "\t", map { ('-H', "$_=$headers->{$_}") } sort keys %{ $headers // {} } ],
			'<', \$in, '>', \my $out, '2>', \$err)
		  or die "kcat: $err";
	}
	return;
}

# DESTROY sees to it that no broker outlives its test.
sub DESTROY
{
	my ($self) = @_;
	local ($?, $@);
	eval { $self->control('kill9') };
	return;
}

1;
