# The story that make demo plays ends as it is told, up to the messages in (librdkafka's built-in) Kafka.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use IPC::Run ();
use Test::More;

my $node = new_node('demo');
my @parts = sort glob("$FindBin::RealBin/../../demo/[0-9]*.sql");
is(scalar @parts, 5, 'the story has five parts');

$ENV{PGOPTIONS} = '-c client_min_messages=warning';
my ($out, $err) = ('', '');
my $ok = IPC::Run::run(
	[
		'psql', '-X', '-q', '-A', '-t', '-F', ' ', '-P', 'null=-', '-v', 'ON_ERROR_STOP=1', '-v', 'ECHO=none',
		'-d', $node->connstr('postgres'), map { ('-f', $_) } @parts
	],
	'<', \undef, '>', \$out, '2>', \$err,
	IPC::Run::timeout($EventsrcTest::PATIENCE));
ok($ok, 'the story runs to its end') or diag($err);

like($err, qr/ERROR:  version conflict in stream Document contract-7 of store "document"\n.*DETAIL:  expected=1 actual=2/,
	'the second submit is refused');
like($out, qr/^SQLSTATE: VE001$/m, 'with the SQLSTATE of a conflict');
like($err, qr/ERROR:  cannot update append-only table/, 'an UPDATE is refused');
like($out, qr/^SQLSTATE: VE006$/m, 'with the SQLSTATE of an append-only table');
is(scalar(() = $err =~ /ERROR:/g), 2, 'there are no other errors') or diag($err);

my @stream = $out =~ /^\d+ (DocumentUploaded|DocumentLocked|DocumentUnlocked|RevisionUploaded) ana \{/mg;
is_deeply(\@stream, [qw(DocumentUploaded DocumentLocked DocumentUnlocked RevisionUploaded DocumentLocked)],
	'the stream of the document');
like($out, qr/^\{"pages": 14, "title": "Lease contract", "locked": true, "revision": 2\}\n\{"pages": 12, .*"revision": 1\}$/m,
	'its state now, and before the cancellation');
like($out, qr/"status": "accepted".*\} \{.*"status": "requested"/, 'the same of the translation');

my @chain = $out =~ /^\d+ +(\w+) (?:document|translation) \d+ \w+$/mg;
is_deeply(
	\@chain,
	[
		qw(DocumentLocked TranslationRequested TranslationCancelled DocumentUnlocked
		  DocumentLocked TranslationRequested TranslationAccepted)
	],
	'the chain across both stores');
like($out, qr/^4711 100 \{"lines": 100, "total": 1980.00\}$/m, 'a snapshot is taken at the 100th event');
like($out, qr/^\{"lines": 130, "total": 2574.00\} 130 100 30$/m, 'and used');
like($out, qr/^\{"lines": 99, "total": 1960.20\} 99 - 99$/m, 'but not for what was before');

my @messages = $out =~ /^ job-42  \{"eventId":"[-0-9a-f]{36}","eventType":"(\w+)","aggregateId":"job-42",/mg;
is_deeply(\@messages, [qw(TranslationRequested TranslationCancelled TranslationRequested TranslationAccepted)],
	'the messages arrived in Kafka, in order');
like($out, qr/^ correlation-id: job-42$/m, 'with headers');

$node->stop;
done_testing();
