# In a restored database new positions follow those of all its stores, in the very server that restored it.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
create_extension($node, 'original');
$node->safe_psql('original', q{
	SELECT es_create_store('a'), es_create_store('b');
	SELECT es_append('T', '1', 'E', store => 'a');
	SELECT es_append('T', n::text, 'E', store => 'b') FROM generate_series(1, 20) n;
});
my $highest = $node->safe_psql('original', 'SELECT max(global_position) FROM b.events');
my $dump = "$PostgreSQL::Test::Utils::tmp_check/original.dump";
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, 'original' ], 'dumped');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', 'restored', $dump ], 'restored');

my ($version, $position) = split /\|/,
  $node->safe_psql('restored', q{SELECT * FROM es_append('T', '1', 'E', store => 'a')});
is($version, 2, 'the version follows the old one');
cmp_ok($position, '>', $highest, 'the position follows those of the other store too');
is($node->safe_psql('restored', 'SELECT es_safe_position()'), $position, 'and readers come to it');
is($node->safe_psql('restored', q{SELECT count(*) FROM es_read_all(0, NULL, store => 'b')}), '20', 'nothing is lost');

$node->stop;
done_testing();
