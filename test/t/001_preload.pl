# eventsrc works only when it is loaded at server start, and says so.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('bare', preload => '');
is(sqlstate_of($node, "LOAD 'eventsrc'"), 'VE010', 'LOAD without preload is refused');
is(sqlstate_of($node, 'CREATE EXTENSION eventsrc'), 'VE010', 'CREATE EXTENSION without preload is refused');
my ($status, $out, $err) = $node->psql('postgres', 'CREATE EXTENSION eventsrc');
like($err, qr/HINT:.*shared_preload_libraries/, 'the hint names the setting');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'eventsrc'}),
	'0', 'nothing is left behind');

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'eventsrc'");
$node->restart;
create_extension($node);
is($node->safe_psql('postgres', 'SHOW eventsrc.store'), 'es', 'with preload it works');

my $session = new_session($node);
$session->query('BEGIN');
$session->query("SET LOCAL eventsrc.store = 'other'");
is($session->query('SHOW eventsrc.store'), 'other', 'a session sees its setting');
$session->query('SELECT 1/0');
like($session->last_error, qr/ERROR:  22012:/, 'a session shows errors with their SQLSTATE');
$session->query('ROLLBACK');
is($session->query('SHOW eventsrc.store'), 'es', 'the setting ended with its transaction');
$session->quit;
$node->stop;

done_testing();
