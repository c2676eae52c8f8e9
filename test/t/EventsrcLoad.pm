# EventsrcLoad: writers that think, roll back and use savepoints, readers that follow, and what must hold
# afterwards.  For the tests of crash recovery, standbys and the safe position.
package EventsrcLoad;

use strict;
use warnings;
use Exporter 'import';
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use EventsrcTest;

our @EXPORT = qw(make_stores start_writers writing finish_writers events_of check_streams check_indexes @STORES
  new_readers read_pages read_to_end skipped check_readers reconnect_readers quit_readers
  start_clients end_clients acknowledged lines_in check_acknowledged);

# One store has a name that needs quoting.
our @STORES = ('es', 'Second "store"');

# quoted_store returns a store's name as an SQL identifier.
sub quoted_store
{
	my ($store) = @_;
	$store =~ s/"/""/g;
	return qq{"$store"};
}

# make_stores makes the stores in a database.
sub make_stores
{
	my ($node, $database) = @_;
	$node->safe_psql($database // 'postgres', "SELECT es_create_store('$_')") foreach @STORES;
	return;
}

# start_writers starts sessions that append: they think between an append and the commit, append late in
# old transactions, use savepoints and roll back a fifth of all.  Streams are locked in one order, so that
# there are no deadlocks.
#     options: database => 'postgres', clients => 8, transactions => 300 each, port/host by $node
sub start_writers
{
	my ($node, %option) = @_;
	my $database = $option{database} // 'postgres';
	my $clients = $option{clients} // 8;
	my $transactions = $option{transactions} // 300;
	my $script = PostgreSQL::Test::Utils::tempdir('writers') . '/writer.sql';
	my ($out, $err) = ('', '');

	append_to_file($script, <<"END");
\\set first random(1, 10)
\\set second random(11, 20)
\\set before random(0, 6)
\\set think random(0, 12)
\\set fate random(1, 100)
\\set inner random(1, 100)
\\set many random(1, 8)
BEGIN;
\\if :fate % 4 = 0
SELECT pg_current_xact_id();
\\sleep :before ms
\\endif
SELECT es_append('Order', 'o' || :first, 'Placed', '{"a": 1}');
\\if :fate % 3 = 0
\\sleep :think ms
\\endif
SAVEPOINT s;
SELECT es_append_events('Order', 'o' || :second, array_fill('Changed'::text, ARRAY[:many]), array_fill('{"b": 2}'::jsonb, ARRAY[:many]));
\\if :inner <= 30
ROLLBACK TO SAVEPOINT s;
\\endif
\\if :inner % 2 = 0
\\sleep :think ms
\\endif
\\if :fate % 5 <> 4
SELECT es_append('Shelf', 's' || :first, 'Filled', '{}', store => '$STORES[1]');
\\endif
\\if :fate % 7 = 0
INSERT INTO es.events (aggregate_type, aggregate_id, event_type, data) SELECT 'Plain', 'p' || :first, 'Inserted', '{}' FROM generate_series(1, 3);
\\sleep :think ms
\\endif
\\if :fate <= 20
ROLLBACK;
\\else
COMMIT;
\\endif
END
	my @command = (
		'pgbench', '-n', '-c', $clients, '-j', 1, '-t', $transactions, '-f', $script,
		'-h', $node->host, '-p', $node->port, $database);
	my $self = { out => \$out, err => \$err };
	$self->{run} = IPC::Run::start(\@command, '<', \undef, '>', \$out, '2>', \$err,
		IPC::Run::timeout($EventsrcTest::PATIENCE * 4 * ($ENV{EVENTSRC_TORTURE} || 1)));
	return $self;
}

# writing tells whether the writers are still at it.
sub writing
{
	my ($self) = @_;
	return $self->{run}->pumpable && eval { $self->{run}->pump_nb; 1 };
}

# finish_writers waits for the writers; may_fail: their server went away.
sub finish_writers
{
	my ($self, %option) = @_;
	my $ok = eval { IPC::Run::finish($self->{run}) };
	return if $option{may_fail};
	ok($ok, 'the writers met no error') or diag(${ $self->{err} });
	return;
}

# events_of returns the positions of all events of a store, in order.
sub events_of
{
	my ($node, $store, $database) = @_;
	return split /\n/,
	  $node->safe_psql($database // 'postgres',
		'SELECT global_position FROM ' . quoted_store($store) . '.events ORDER BY 1');
}

# client_script returns what one client does: appends in transactions of their own, several events, several streams
# in a transaction, thinking in between, savepoints, rollbacks, transactions that begin with a transaction id and
# append late, and connections that break off.  Each prints what it may rely on once the transaction is over.
sub client_script
{
	my ($name, $steps) = @_;
	my $script = '';
	my $append = sub {
		my ($kind, $id, $event_id, $store) = @_;
		my $columns = $event_id ? "'$store', '$kind', '$id', version, global_position, '$event_id'" : 'count(*)';
		my $given = $event_id ? ", event_id => '$event_id'" : '';
		(my $name = $store) =~ s/'/''/g;
		return "SELECT $columns FROM es_append('$kind', '$id', 'Happened', '{\"n\": 1}'$given, store => '$name');\n";
	};
	my $think = sub { return int(rand(2)) ? 'SELECT pg_sleep(' . int(rand(8)) / 1000 . ");\n" : ''; };
	foreach my $i (1 .. $steps)
	{
		my ($order, $shelf) = ('o' . (1 + int(rand(6))), 's' . (1 + int(rand(6))));
		my $what = int(rand(20));
		my $begin = "BEGIN;\n" . (int(rand(3)) ? '' : "SELECT pg_current_xact_id();\n" . $think->());
		if ($what < 8)
		{
			$script .= $append->('Order', $order, "$name.$i", 'es');
		}
		elsif ($what < 10)
		{
			$script .= "SELECT 'es', 'Order', '$order', version, global_position, '$name.$i.c' FROM es_append_events('Order', '$order',"
			  . " '{A,B,C}', array_fill('{}'::jsonb, ARRAY[3]), event_ids => '{$name.$i.a,$name.$i.b,$name.$i.c}');\n";
		}
		elsif ($what < 13)
		{
			$script .= $begin . $append->('Order', $order, "$name.$i.a", 'es') . $think->()
			  . $append->('Shelf', $shelf, "$name.$i.b", $STORES[1]) . $think->() . "COMMIT;\n";
		}
		elsif ($what < 16)
		{
			$script .= $begin . $append->('Order', $order, "$name.$i.a", 'es') . "SAVEPOINT s;\n" . $append->('Order', $order, '', 'es')
			  . $think->() . "ROLLBACK TO SAVEPOINT s;\n" . $append->('Shelf', $shelf, "$name.$i.b", $STORES[1]) . "COMMIT;\n";
		}
		elsif ($what < 19)
		{
			$script .= $begin . $append->('Order', $order, '', 'es') . $think->() . "ROLLBACK;\n";
		}
		else
		{
			$script .= $begin . $append->('Order', $order, '', 'es') . $think->() . "\\connect\n\\echo ROLLBACK\n";
		}
	}
	return $script;
}

# start_clients starts sessions that append and note what was acknowledged.
#     options: clients => 4, steps => 4000 each, name => prefix of their event ids, which must be new
sub start_clients
{
	my ($node, %option) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir('clients');
	my $self = { runs => [], files => [] };
	foreach my $client (1 .. $option{clients} // 4)
	{
		my $name = "$option{name}.c$client";
		append_to_file("$folder/$name.sql", client_script($name, $option{steps} // 4000));
		append_to_file("$folder/$name.out", '');
		push @{ $self->{files} }, "$folder/$name.out";
		push @{ $self->{runs} }, IPC::Run::start(
			[ 'psql', '-X', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') . ' application_name=client', '-f', "$folder/$name.sql" ],
			'<', \undef, '>', "$folder/$name.out", '2>', "$folder/$name.err");
	}
	return $self;
}

# end_clients waits for clients that have lost their server, and returns what they were told.
sub end_clients
{
	my ($self) = @_;
	eval { $_->finish } foreach @{ $self->{runs} };
	return map { acknowledged($_) } @{ $self->{files} };
}

# acknowledged reads what a client was told: [store, aggregate type, id, version, position, event id] each.
# Rows within a transaction count once COMMIT was answered.
sub acknowledged
{
	my ($file) = @_;
	my (@all, @open, $in, $savepoint);
	open my $lines, '<', $file or die "$file: $!";
	while (my $line = <$lines>)
	{
		last unless $line =~ s/\n\z//;
		if ($line eq 'BEGIN') { $in = 1; $savepoint = 0; @open = (); }
		elsif ($line eq 'SAVEPOINT') { $savepoint = 1; }
		elsif ($line eq 'ROLLBACK' && $savepoint) { $savepoint = 0; }
		elsif ($line eq 'ROLLBACK') { $in = 0; }
		elsif ($line eq 'COMMIT') { $in = 0; push @all, @open; }
		elsif ($line =~ /\|.*\|/) { push @{ $in ? \@open : \@all }, [ split /\|/, $line ]; }
	}
	close $lines;
	return @all;
}

# lines_in counts the lines of some files.
sub lines_in
{
	my $n = 0;
	foreach my $file (@_) { $n += () = slurp_file($file) =~ /\n/g; }
	return $n;
}

# check_acknowledged checks that all that clients were told is there, as they were told.
sub check_acknowledged
{
	my ($node, $when, @promised) = @_;
	my %event;
	foreach my $store (@STORES)
	{
		foreach my $line (split /\n/, $node->safe_psql('postgres',
				'SELECT event_id, aggregate_type, aggregate_id, version, global_position FROM ' . quoted_store($store) . '.events'))
		{
			my ($id, @rest) = split /\|/, $line;
			$event{$id} = join '|', $store, @rest;
		}
	}
	my @lost = grep { ($event{ $_->[5] } // '') ne join('|', @{$_}[ 0 .. 4 ]) } @promised;
	is(scalar @lost, 0, "nothing acknowledged is lost or changed $when")
	  or diag(join "\n", map { "@$_ / " . ($event{ $_->[5] } // 'gone') } @lost[0 .. ($#lost > 10 ? 10 : $#lost)]);
	my @part = grep { /^(.*)\.a$/ && !exists $event{"$1.b"} || /^(.*)\.b$/ && !exists $event{"$1.a"} } keys %event;
	is("@part", '', "no transaction is there in part $when");
	return;
}

# new_readers starts readers by position.  Each remembers what it saw of each store, like a consumer, and so can
# go on after a crash or at another server.  The first reads page by page; the second many small pages in one
# transaction at REPEATABLE READ; the third by es_wait(); then again.
#     options: database => 'postgres', stores => [...], count => 3
sub new_readers
{
	my ($node, %option) = @_;
	my $self = { database => $option{database} // 'postgres', stores => $option{stores} // [@STORES], all => [] };
	foreach my $i (0 .. ($option{count} // 3) - 1)
	{
		push @{ $self->{all} },
		  {
			kind => $i % 3,
			name => "reader $i",
			last => { map { $_ => 0 } @{ $self->{stores} } },
			saw => { map { $_ => [] } @{ $self->{stores} } }
		  };
	}
	reconnect_readers($self, $node);
	return $self;
}

# reconnect_readers gives all readers new sessions, at this server or another.
sub reconnect_readers
{
	my ($self, $node) = @_;
	$self->{node} = $node;
	quit_readers($self);
	$_->{session} = new_session($node, database => $self->{database}) foreach @{ $self->{all} };
	return;
}

# read_pages lets every reader read on in every store, at the same time.  Returns how many events they got; -1 if
# one lost its server.
sub read_pages
{
	my ($self) = @_;
	my $count = 0;
	foreach my $store (@{ $self->{stores} })
	{
		foreach my $reader (@{ $self->{all} })
		{
			my $size = 1 + int(rand(40));
			my $last = $reader->{last}{$store};
			(my $name = $store) =~ s/'/''/g;
			my $page = sub { "SELECT global_position FROM es_read_all($_[0], $size, store => '$name')" };
			my $statements = $page->($last);
			$statements = "SELECT '' FROM es_wait($last, '1 ms', store => '$name');\n$statements" if $reader->{kind} == 2;
			$statements = "BEGIN ISOLATION LEVEL REPEATABLE READ;\n"
			  . "SELECT string_agg(global_position::text, ' ') AS page, coalesce(max(global_position), $last) AS last FROM es_read_all($last, $size, store => '$name') \\gset\n"
			  . "\\if :{?page}\n\\echo :page\n\\endif\n" . $page->(':last') . ";\nCOMMIT"
			  if $reader->{kind} == 1;
			eval { $reader->{session}->start($statements); 1 } or return -1;
		}
		foreach my $reader (@{ $self->{all} })
		{
			my $out = eval { $reader->{session}->result };
			return -1 if !defined $out || $reader->{session}->last_error;
			my @rows = split ' ', $out;
			push @{ $reader->{saw}{$store} }, @rows;
			$reader->{last}{$store} = $rows[-1] if @rows;
			$count += @rows;
		}
	}
	return $count;
}

# read_to_end reads until there is no more.
sub read_to_end
{
	my ($self) = @_;
	my $count;
	while (($count = read_pages($self)) > 0) { }
	is($count, 0, 'the readers meet no error');
	return;
}

# skipped returns how many events of a store a reader has passed and not seen.
sub skipped
{
	my ($reader, $store, @truth) = @_;
	my %saw = map { $_ => 1 } @{ $reader->{saw}{$store} };
	return scalar grep { $_ <= $reader->{last}{$store} && !$saw{$_} } @truth;
}

# check_readers checks that every reader saw every event of every store once and in order.
sub check_readers
{
	my ($self, $when) = @_;
	foreach my $store (@{ $self->{stores} })
	{
		my @truth = events_of($self->{node}, $store, $self->{database});
		foreach my $reader (@{ $self->{all} })
		{
			ok("@{ $reader->{saw}{$store} }" eq "@truth", "$reader->{name} saw every event of $store once and in order, $when")
			  or diag(scalar @truth . ' events, saw ' . scalar @{ $reader->{saw}{$store} } . ', skipped ' . skipped($reader, $store, @truth));
		}
	}
	return;
}

# quit_readers ends their sessions, if they have any.
sub quit_readers
{
	my ($self) = @_;
	$_->{session}->quit foreach grep { $_->{session} } @{ $self->{all} };
	return;
}

# check_streams checks what must hold of every store at any time.
sub check_streams
{
	my ($node, $when, $database) = @_;
	$database //= 'postgres';
	foreach my $store (@STORES)
	{
		my $schema = quoted_store($store);
		is($node->safe_psql($database, <<"END"), '', "$store: versions are dense $when");
SELECT aggregate_type, aggregate_id, count(*), min(version), max(version), count(DISTINCT version)
FROM $schema.events GROUP BY 1, 2
HAVING min(version) <> 1 OR max(version) <> count(*) OR count(DISTINCT version) <> count(*)
END
		is($node->safe_psql($database, <<"END"), '', "$store: positions and times increase with versions $when");
SELECT * FROM (
	SELECT aggregate_type, aggregate_id, version, global_position, recorded_at,
		lag(global_position) OVER stream AS before, lag(recorded_at) OVER stream AS time_before
	FROM $schema.events WINDOW stream AS (PARTITION BY aggregate_type, aggregate_id ORDER BY version)) e
WHERE before >= global_position OR time_before > recorded_at
END
		is($node->safe_psql($database, <<"END"), '', "$store: streams and events agree $when");
SELECT aggregate_type, aggregate_id, s.first_partition, e.first, s.last_partition, e.last
FROM $schema.streams s
FULL JOIN (SELECT aggregate_type, aggregate_id,
		date_trunc('month', min(recorded_at), 'UTC') AS first, date_trunc('month', max(recorded_at), 'UTC') AS last
	FROM $schema.events GROUP BY 1, 2) e USING (aggregate_type, aggregate_id)
WHERE (s.first_partition, s.last_partition) IS DISTINCT FROM (e.first, e.last)
END
	}
	is($node->safe_psql($database, 'SELECT global_position, count(*) FROM ('
				. join(' UNION ALL ', map { 'SELECT global_position FROM ' . quoted_store($_) . '.events' } @STORES)
				. ') e GROUP BY 1 HAVING count(*) > 1'),
		'', "no position is given twice, in all stores together, $when");
	return;
}

# check_indexes compares the indexes of all stores with their tables: by amcheck where there is one, and by
# reading each way.
sub check_indexes
{
	my ($node, $when, $database) = @_;
	$database //= 'postgres';
	if ($node->safe_psql($database, q{SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'}) eq '1')
	{
		my $checked = $node->safe_psql($database, <<'END');
CREATE EXTENSION IF NOT EXISTS amcheck;
SELECT count(bt_index_check(i.indexrelid, true)::text) FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
JOIN pg_class t ON t.oid = i.indrelid
JOIN eventsrc.stores s ON t.relnamespace = quote_ident(s.store)::regnamespace
END
		ok($checked >= 10, "amcheck finds $checked indexes in order $when");
	}
	foreach my $store (@STORES)
	{
		my $schema = quoted_store($store);
		my $query = 'SELECT count(*), sum(%s), max(%s)::text FROM %s WHERE %s > 0';
		foreach my $column ('global_position', 'version')
		{
			my $by = $column eq 'version' ? q{aggregate_type > '' AND aggregate_id > '' AND version} : $column;
			my $select = sprintf($query, $column, $column, "$schema.events", $by);
			my $sequential = $node->safe_psql($database,
				"SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off; $select");
			my $index = $node->safe_psql($database, "SET enable_seqscan = off; $select");
			is($index, $sequential, "$store: the index on $column has what the table has $when");
		}
	}
	return;
}

1;
