# A relay with send_after "replicated" sends only what the synchronous standby has, also of commits that did not wait
# for it.  librdkafka's own broker serves.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use Test::More;

my $primary = new_node('primary', standbys => 1, conf => "synchronous_commit = local\n");
create_extension($primary);
$primary->safe_psql('postgres', <<'END');
SELECT es_create_store();
CREATE SERVER broker FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "test.mock.num.brokers" '1');
SELECT es_append('Order', '1', 'Placed');
SELECT es_create_relay('strict', 'broker', options => '{"send_after": "replicated", "lanes": 2}');
SELECT es_create_relay('plain', 'broker');
END

wait_for_relay($primary, 'plain', 'sent = 1');
wait_for_relay($primary, 'strict', q{state = 'stopped' AND last_error LIKE 'synchronous_standby_names is empty%'});

my $standby = add_standby($primary, start => 0);

# --- a standby that is not there ---

alter_system($primary, synchronous_standby_names => 'standby');
wait_for_relay($primary, 'strict', q{state = 'retrying' AND last_error LIKE 'no synchronous standby%'});
is($primary->safe_psql('postgres', q{SELECT sent, lag_events FROM es_relays WHERE relay = 'strict'}), '0|1', 'nothing is sent');
$standby->start;
wait_for_relay($primary, 'strict', q{state = 'running' AND sent = 1 AND lag_events = 0});

# --- commits that do not wait go out once the standby has them ---

$primary->safe_psql('postgres', q{SELECT es_append('Order', n::text, 'Placed') FROM generate_series(1, 50) n});
wait_for_relay($primary, 'strict', q{state = 'running' AND sent = 51 AND lag_events = 0});
$standby->stop;
wait_until($primary, 'SELECT count(*) FROM pg_stat_replication', 'the standby is gone', '0');
$primary->safe_psql('postgres', q{SELECT es_append('Order', '1', 'Paid') FROM generate_series(1, 5) n});
$primary->safe_psql('postgres', q{SET synchronous_commit = off; SELECT es_append('Order', '2', 'Paid') FROM generate_series(1, 5) n});
wait_for_relay($primary, 'plain', 'sent = 61 AND lag_events = 0');
wait_for_relay($primary, 'strict', q{lag_events = 10 AND state = 'retrying' AND last_error LIKE 'no synchronous standby%'});
is($primary->safe_psql('postgres', q{SELECT sent FROM es_relays WHERE relay = 'strict'}), '51', 'what the standby lacks is not sent');

# --- leaving works meanwhile, and the worker that comes back does not send either ---

$primary->safe_psql('postgres', q{SELECT es_pause_relay('strict')});
wait_for_relay($primary, 'strict', q{state = 'paused' AND pid IS NULL});
$primary->safe_psql('postgres', q{SELECT es_resume_relay('strict')});
wait_for_relay($primary, 'strict', q{state = 'retrying' AND last_error LIKE 'no synchronous standby%' AND sent = 0 AND lag_events = 10});
$standby->start;
wait_for_relay($primary, 'strict', q{state = 'running' AND sent = 10 AND lag_events = 0});

# --- the names are taken away and set again while it runs; the option is taken away ---

my $retries = $primary->safe_psql('postgres', q{SELECT retries FROM es_relay_lanes WHERE relay = 'strict' AND lane = 0});
alter_system($primary, synchronous_standby_names => '');
wait_until($primary, "SELECT bool_and(state = 'stopped' AND retries > $retries) FROM es_relay_lanes WHERE relay = 'strict' AND lane = 0",
	'the worker stops');
$primary->safe_psql('postgres', q{SELECT es_append('Order', '1', 'Sent')});
wait_for_relay($primary, 'plain', 'lag_events = 0');
wait_for_relay($primary, 'strict', q{state = 'stopped' AND lag_events = 1 AND last_error LIKE 'synchronous_standby_names is empty%'});
alter_system($primary, synchronous_standby_names => 'standby');
wait_for_relay($primary, 'strict', q{state = 'running' AND lag_events = 0});
$standby->stop;
$primary->safe_psql('postgres', q{SELECT es_append('Order', '1', 'Received')});
wait_for_relay($primary, 'plain', 'lag_events = 0');
$primary->safe_psql('postgres', q{SELECT es_alter_relay('strict', options => '{"send_after": null}')});
wait_for_relay($primary, 'strict', q{state = 'running' AND lag_events = 0});
wait_until($primary, 'SELECT count(*) FROM pg_stat_replication', 'without the option no standby is needed', '0');

check_no_crash($primary);
$primary->stop;
done_testing();
