# The README is true: its SQL runs from top to bottom on a fresh server.  A block "sql error=CODE" ends with
# that SQLSTATE; every other one has no errors.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $readme = "$FindBin::RealBin/../../README.md";
my $text = slurp_file($readme);
my ($script, $blocks, @expected) = ("\\set ON_ERROR_STOP on\n", 0);
while ($text =~ /^```sql(?: error=(\w{5}))?\n(.*?)^```$/msg)
{
	my ($code, $sql) = ($1, $2);
	$blocks++;
	if (defined $code)
	{
		push @expected, $code;
		$script .= "\\set ON_ERROR_STOP off\n$sql\n\\echo block-failed :LAST_ERROR_SQLSTATE\n\\set ON_ERROR_STOP on\n";
	}
	else
	{
		$script .= "$sql\n\\echo block-done\n";
	}
}
is($blocks, scalar(() = $text =~ /^```sql/mg), 'all blocks of SQL are well-formed');
cmp_ok($blocks, '>', 15, 'there are blocks of SQL');

my $node = new_node('readme');
my $file = "$PostgreSQL::Test::Utils::tmp_check/readme.sql";
append_to_file($file, $script);
my ($out, $err);
my $ok = IPC::Run::run([ 'psql', '-X', '-q', '-A', '-t', '-d', $node->connstr('postgres'), '-f', $file ],
	'<', \undef, '>', \$out, '2>', \$err);
ok($ok, 'the README runs to its end') or diag($err);
is(scalar(() = $out =~ /^block-(?:done|failed)/mg), $blocks, 'block by block');
is_deeply([ $out =~ /^block-failed (\w+)$/mg ], \@expected, 'the errors are those that it tells of');
is(scalar(() = $err =~ /ERROR:/g), scalar @expected, 'there are no others') or diag($err);

# what it says of settings and SQLSTATEs is complete
my @settings = split /\n/, $node->safe_psql('postgres', q{SELECT name FROM pg_settings WHERE name LIKE 'eventsrc.%' AND name NOT LIKE 'eventsrc.test\_%'});
cmp_ok(scalar @settings, '>', 5, 'there are settings');
like($text, qr/`\Q$_\E`/, "the README tells of $_") foreach @settings;
my @functions = split /\n/, $node->safe_psql('postgres', q{SELECT DISTINCT proname FROM pg_proc
	WHERE proname LIKE 'es\_%' AND pronamespace = 'public'::regnamespace});
cmp_ok(scalar @functions, '>', 10, 'there are functions');
like($text, qr/^\|[^|]*`\Q$_\E\(/m, "the reference has $_") foreach @functions;
my @codes = slurp_file("$FindBin::RealBin/../../src/errors.h") =~ /MAKE_SQLSTATE\(([^)]*)\)/g;
cmp_ok(scalar @codes, '>', 10, 'there are SQLSTATEs');
foreach my $code (@codes)
{
	$code =~ s/[^A-Z0-9]//g;
	like($text, qr/^\| \Q$code\E \|/m, "the README explains $code");
}

$node->stop;
done_testing();
