# The JSON Schema Test Suite, for the drafts that eventsrc reads: 4, 6 and 7.  Every test must pass, except as many
# of a file as are listed here with the reason.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use File::Basename qw(basename);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $suite = $ENV{ES_JSON_SCHEMA_TEST_SUITE} // '/usr/share/json-schema-test-suite/tests';
my $remotes = "$suite/../remotes";
plan skip_all => 'no JSON Schema Test Suite: install json-schema-test-suite' unless -d "$suite/draft7";

# How many tests of a file do not pass (of Debian's version 2.0.0 of the suite).
my %expected = (
	# "format" and the encoding of content are notes to the reader, not checked
	'draft4 optional format' => 21,
	'draft6 optional format' => 37,
	'draft7 optional content' => 4,
	# draft 4 would have 1.0 be no integer; the later drafts, and eventsrc for all, take it as one
	'draft4 optional zeroTerminatedFloats' => 1,
	# asks for the format "regex" to be checked
	(map { ("draft$_ optional ecmascript-regex" => 1) } 4, 6, 7));

my $node = new_node('main');
create_extension($node);

# The suite's schemas that others refer to are registered; nothing is ever fetched.
$node->safe_psql('postgres', 'SELECT es_create_store()');
for my $draft (4, 6, 7)
{
	$node->safe_psql('postgres', "SELECT es_create_store('draft$draft')");
	for my $name (qw(integer subSchemas name folder/folderInteger))
	{
		my $keyword = $draft == 4 ? 'id' : '$id';
		my $text = slurp_file("$remotes/$name.json");
		$node->safe_psql('postgres', <<"END");
SELECT es_create_event_type('$name', store => 'draft$draft', json_schema => \$json\$$text\$json\$::jsonb
    || '{"$keyword": "http://localhost:1234/$name.json", "\$schema": "http://json-schema.org/draft-0$draft/schema#"}')
END
	}
}
$node->safe_psql('postgres', <<'END');
CREATE FUNCTION run_group(draft int, file text, suite jsonb, OUT description text, OUT test text, OUT outcome text)
RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
    element jsonb;
    json_schema jsonb;
    t jsonb;
BEGIN
    FOR element IN SELECT jsonb_array_elements(suite) LOOP
        json_schema := element -> 'schema';
        IF jsonb_typeof(json_schema) = 'object' AND NOT json_schema ? '$schema' THEN
            json_schema := json_schema || jsonb_build_object('$schema', format('http://json-schema.org/draft-0%s/schema#', draft));
        END IF;
        BEGIN
            json_schema := eventsrc.bundle_json_schema(json_schema, format('draft%s', draft));
        EXCEPTION WHEN OTHERS THEN
            NULL; -- refused again below
        END;
        FOR t IN SELECT jsonb_array_elements(element -> 'tests') LOOP
            description := element ->> 'description';
            test := t ->> 'description';
            BEGIN
                outcome := CASE WHEN (eventsrc.json_schema_failure(json_schema, t -> 'data') IS NULL) = (t -> 'valid')::boolean
                                THEN 'pass' ELSE 'fail' END;
            EXCEPTION WHEN OTHERS THEN
                outcome := 'refused: ' || sqlerrm;
            END;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END $$;
END

my %passed;
my %total;
for my $draft (4, 6, 7)
{
	for my $path (sort(glob("$suite/draft$draft/*.json"), glob("$suite/draft$draft/optional/*.json")))
	{
		my $file = basename($path, '.json');
		my $kind = $path =~ m{/optional/} ? 'optional' : 'required';
		my $quoted = slurp_file($path);
		my $rows = $node->safe_psql('postgres',
			"SELECT outcome || '|' || description || ': ' || test FROM run_group($draft, '$file', \$json\$$quoted\$json\$)");
		my @failed = grep { !/^pass\|/ } split /\n/, $rows;
		my $count = () = $rows =~ /^/gm;
		is(scalar @failed, $expected{"draft$draft $kind $file"} // 0, "draft $draft, $kind, $file: $count tests")
		  || diag(join("\n", @failed));
		$total{$draft}{$kind} += $count;
		$passed{$draft}{$kind} += $count - @failed;
	}
	for my $kind (qw(required optional))
	{
		my ($p, $t) = ($passed{$draft}{$kind} // 0, $total{$draft}{$kind} // 0);
		ok($t >= 21, "draft $draft, $kind: $p of $t tests pass");
	}
}
# Simple patterns have an automaton of our own.  It must say what the server's engine says.
sub pick { return $_[ int(rand(@_)) ] }

sub random_pattern
{
	my ($depth) = @_;
	my $pattern = '';
	for (1 .. 1 + int(rand(3)))
	{
		my $atom = pick('a', 'b', '1', '-', '_', '.', '\\d', '\\w', '\\D', '\\W', '\\.', '[ab]', '[^a]', '[a-c1]', '[^b-c-]', '[\\w-]', '[-.]');
		$atom = '(' . pick('?:', '') . random_pattern($depth - 1) . ')' if $depth > 0 && rand() < 0.3;
		$pattern .= $atom . pick('', '', '', '', '?', '*', '+', '{2}', '{0,2}', '{1,}', '{0}', '*?', '{2,3}?');
	}
	$pattern .= '|' . random_pattern($depth - 1) if $depth > 0 && rand() < 0.3;
	return $pattern;
}
srand(4711);
my @patterns = map {
	my $pattern = random_pattern(3);
	$pattern = "($pattern)" if $pattern =~ /\|/ && rand() < 0.7;
	pick('^', '') . $pattern . pick('$', '')
} 1 .. 300;
push @patterns, '^pay_[0-9a-f]{16}$', '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$', '^[0-9a-f]{128}$', '^[^@ ]+@[^@ ]+\\.[a-z]{2,}$',
  '^(a|a|b)*$', '(a|b)*a(a|b){10}$', '', '^', '$', '^$', 'a|', '^(|a)$', '\\$', '\\\\$', '^\\^$', '[.$]$', '^(?=a)', '(a)\\1', 'a(?!b)';
my @strings = ('', 'pay_0123456789abcdef', 'pay_0123456789abcdeg', '123e4567-e89b-12d3-a456-426614174000', 'f' x 128, 'f' x 129,
	'a@b.de', 'a@@b.de', '$', '\\', '^', "\xc3\xa9", "a\xc3\xa9", "\xe2\x82\xac\xc3\xa9b", "\xf0\x9f\x98\x80");
push @strings, join('', map { pick('a', 'a', 'b', 'c', '1', '-', '_', '.', "\xc3\xa9") } 1 .. 1 + int(rand(12))) for 1 .. 40;
my $compared = <<"END";
FROM string_to_table(\$patterns\$@{[join("\n", @patterns)]}\$patterns\$, E'\\n') AS pattern,
     string_to_table(\$string\$@{[join("\n", @strings)]}\$string\$, E'\\n') AS string,
     LATERAL (SELECT eventsrc.json_schema_failure(jsonb_build_object('pattern', pattern), to_jsonb(string)) IS NULL AS ours,
                     string COLLATE "C" ~ pattern AS theirs OFFSET 0) AS answers
END
is($node->safe_psql('postgres', "SELECT pattern, string, ours, theirs $compared WHERE ours <> theirs LIMIT 20"),
	'', 'random patterns match what they match in the server');
my ($matches, $others) = split /\|/,
  $node->safe_psql('postgres', "SELECT count(*) FILTER (WHERE ours), count(*) FILTER (WHERE NOT ours) $compared");
cmp_ok($matches, '>', 1000, 'many match');
cmp_ok($others, '>', 1000, 'many do not');
$node->stop;
done_testing();
