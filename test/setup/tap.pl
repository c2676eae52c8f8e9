#!/usr/bin/perl
# tap.pl: runs test files that speak TAP, prints a line for each and the whole of what failed.
#     tap.pl pgtap|perl TALLY FOLDER FILE...
# pgtap: each .sql file in a database of its own (made and dropped here; PGHOST, PGUSER say where);
# perl: each .pl file.  Raw output goes to FOLDER.  Adds the line "passed failed" to the file TALLY.
# A file that breaks off, skips everything or tests nothing counts as a failure; but files may skip
# themselves for want of stop points where the build has none.
use strict;
use warnings;
use File::Basename;
use TAP::Parser;
use Time::HiRes qw(time);

my ($kind, $tally, $folder, @files) = @ARGV;
my $time_limit = $ENV{ES_TEST_TIMEOUT} || 900;
my ($all_passed, $all_failed) = (0, 0);

# run_sql runs statements in the database postgres and tells whether they worked.
sub run_sql
{
	my ($database, @statements) = @_;
	return system('psql', '-X', '-q', '-d', $database, '-v', 'ON_ERROR_STOP=1', map { ('-c', $_) } @statements) == 0;
}

# test_command returns the command that runs a test file.
sub test_command
{
	my ($file, $database) = @_;
	my @limit = ('timeout', '-k', '10', $time_limit);
	return [ @limit, $^X, $file ] if $kind eq 'perl';
	return [
		@limit, 'psql', '-X', '-A', '-t', '-q', '-P', 'pager=off', '-v', 'ON_ERROR_STOP=1',
		'-v', 'ON_ERROR_ROLLBACK=1', '-d', $database, '-f', $file
	];
}

# show prints what a person needs of a file's output: what failed and what it said.
sub show
{
	my ($name, $log) = @_;
	open my $in, '<', $log or return;
	my @lines = grep { !/^ok / && !/^\s+ok / } <$in>;
	close $in;
	splice(@lines, 0, @lines - 120) if @lines > 120;
	print "    | $_" for @lines;
	return if $kind ne 'perl';
	my ($trace) = glob("$folder/log/regress_log_$name $folder/tmp_check/log/regress_log_$name");
	return unless defined $trace && -r $trace;
	print "    --- end of $trace\n";
	print `tail -n 40 '$trace' | sed 's/^/    | /'`;
}

foreach my $file (@files)
{
	my $name = basename($file, '.pl', '.sql');
	my $log = "$folder/$name.out";
	my $database = "pgtap_$name";
	my $start = time;
	my ($passed, $failed, $why) = (0, 0, '');

	if ($kind eq 'pgtap'
		&& !(run_sql('postgres', qq{CREATE DATABASE "$database"})
			&& run_sql($database, 'CREATE EXTENSION pgtap', 'CREATE EXTENSION eventsrc')))
	{
		($failed, $why) = (1, 'its database could not be made');
	}
	else
	{
		open my $spool, '>', $log or die "$log: $!";
		$spool->autoflush(1);
		my $parser = TAP::Parser->new(
			{
				exec => test_command($file, $database),
				spool => $spool,
				merge => 1
			});
		$parser->run;
		close $spool;
		($passed, $failed) = (scalar $parser->actual_passed, scalar $parser->actual_failed);
		my $status = $parser->wait >> 8;
		my $skips = $parser->skip_all // '';
		if ($skips =~ /stop points/ && !$ENV{STOP_POINTS})
		{
			printf "%-6s %-40s %s\n", 'skip', basename($file), $skips;
			next;
		}
		$why = "skipped: " . $parser->skip_all if $parser->skip_all;
		$why = "ran nothing" if !$passed && !$failed && !$why;
		$why = "planned @{[ $parser->tests_planned // 'nothing' ]}, ran " . $parser->tests_run
		  if !$parser->is_good_plan && !$parser->skip_all;
		$why = "ended with status $status" if $status && !$failed;
		$why = "ended by a signal or after $time_limit s" if $status == 124 || $status == 137 || $parser->wait & 127;
		$failed++ if $why;
	}
	run_sql('postgres', qq{DROP DATABASE IF EXISTS "$database" WITH (FORCE)}) if $kind eq 'pgtap';

	printf "%-6s %-40s %4d passed, %d failed  %.1f s%s\n", $failed ? 'FAILED' : 'ok',
	  basename($file), $passed, $failed, time - $start, $why ? "  ($why)" : '';
	show($name, $log) if $failed;
	$all_passed += $passed;
	$all_failed += $failed;
}

open my $out, '>>', $tally or die "$tally: $!";
print $out "$all_passed $all_failed\n";
close $out;
exit($all_failed ? 1 : 0);
