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
plan skip_all => 'no JSON Schema Test Suite: install json-schema-test-suite' unless -d "$suite/draft7";

# How many tests of a file do not pass (of Debian's version 2.0.0 of the suite).
my %expected = (
	# schemas elsewhere are never fetched: such a reference is refused when the schema is registered
	(map { ("draft$_ required refRemote" => 15) } 4, 6, 7),
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
$node->stop;
done_testing();
