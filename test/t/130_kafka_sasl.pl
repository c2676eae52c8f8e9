# Kafka with TLS and SASL, PLAIN and SCRAM: certificates and host names are verified, credentials stay where they belong.
# And the partitions of keys, beside those that the Java client chooses.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $folder = PostgreSQL::Test::Utils::tempdir('certificates');
my $password = 'hush-7f3a';
my $partitions = 7;

# openssl runs a command of openssl in the folder of the certificates.
sub openssl
{
	my @arguments = map { s/^=/$folder\//r } @_;
	my $out = '';
	IPC::Run::run([ 'openssl', @arguments ], '<', \undef, '>', \$out, '2>&1') or die "openssl @arguments: $out";
	return;
}

# a certificate authority, and a broker's certificate for the name localhost, not for its number
openssl(qw(req -x509 -newkey rsa:2048 -nodes -days 7 -subj /CN=authority -keyout =ca.key -out =ca.pem));
openssl(qw(req -newkey rsa:2048 -nodes -subj /CN=broker -keyout =broker.key -out =broker.csr));
append_to_file("$folder/names", "subjectAltName=DNS:localhost\n");
openssl(qw(x509 -req -in =broker.csr -CA =ca.pem -CAkey =ca.key -CAcreateserial -days 7 -extfile =names -out =broker.pem));
append_to_file("$folder/both.pem", slurp_file("$folder/broker.key") . slurp_file("$folder/broker.pem") . slurp_file("$folder/ca.pem"));

$ENV{KAFKA_SECURE} = "$folder/both.pem";
$ENV{KAFKA_PASSWORD} = $password;
my $kafka = new_kafka(partitions => $partitions);
chomp(my $secure = $kafka->file('secure'));
my ($port) = $secure =~ /:(\d+)$/;

my $node = new_node('sasl');
create_extension($node);
$node->safe_psql('postgres', <<'END');
SELECT es_create_store();
SELECT es_append('Order', '1', 'Placed');
CREATE ROLE looker;
END

# create_server makes a server with TLS and SASL, a user mapping and a relay, all of that name.
sub create_server
{
	my ($name, $address, $options, $secret, $mechanism) = @_;
	$mechanism //= 'PLAIN';
	$options = join '', map { qq(, "$_" '$options->{$_}') } sort keys %$options;
	$node->safe_psql('postgres', <<"END");
CREATE SERVER $name FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "bootstrap.servers" '$address',
    "security.protocol" 'SASL_SSL', "sasl.mechanism" '$mechanism' $options);
CREATE USER MAPPING FOR CURRENT_USER SERVER $name OPTIONS ("sasl.username" 'relay', "sasl.password" '$secret');
SELECT es_create_relay('$name', '$name', '$name');
END
	return;
}

my %trusted = ('ssl.ca.location' => "$folder/ca.pem");
my $sent = q{state = 'running' AND sent = 1};
create_server('good', $secure, \%trusted, $password);
wait_for_relay($node, 'good', $sent, 'events go out over TLS, with a password');
is(scalar($kafka->wait_for_messages('good', 1)), 1, 'and arrive');

# librdkafka before 2.6.1 sends a nonce that Kafka 4 refuses
IPC::Run::run([ 'kcat', '-V' ], '>', \my $version, '2>&1');
my ($major, $minor, $patch) = $version =~ /librdkafka (\d+)\.(\d+)\.(\d+)/;
my $able = $major * 10000 + $minor * 100 + $patch >= 20601;
create_server('scram', $secure, \%trusted, $password, 'SCRAM-SHA-512');
wait_for_relay($node, 'scram', $able ? $sent : q{state = 'retrying' AND last_error ~* 'authentication failed.*SCRAM-SHA-512'},
	$able ? 'and with SCRAM' : "SCRAM, of which librdkafka $major.$minor.$patch is not able, says why it does not go out");
is($node->safe_psql('postgres', 'SELECT es_drop_relay(\'scram\')'), '', 'and is dropped');

create_server('wrong_password', $secure, \%trusted, "$password-not");
wait_for_relay($node, 'wrong_password', q{state = 'retrying' AND last_error ~* 'authentication failed'}, 'a wrong password shows as such');
$node->safe_psql('postgres', qq{ALTER USER MAPPING FOR CURRENT_USER SERVER wrong_password OPTIONS (SET "sasl.password" '$password')});
wait_for_relay($node, 'wrong_password', $sent, 'and is mended by setting the right one');

create_server('no_authority', $secure, {}, $password);
wait_for_relay($node, 'no_authority', q{state = 'retrying' AND last_error ~* 'certificate verify failed'},
	'a certificate that nobody vouches for is refused');
$node->safe_psql('postgres', q{ALTER SERVER no_authority OPTIONS (ADD "enable.ssl.certificate.verification" 'false')});
wait_for_relay($node, 'no_authority', $sent, 'unless verification is turned off by name');

create_server('wrong_name', "127.0.0.1:$port", \%trusted, $password);
wait_for_relay($node, 'wrong_name', q{state = 'retrying' AND last_error ~* 'certificate|hostname|verif'},
	'a certificate for another name is refused');
$node->safe_psql('postgres', q{ALTER SERVER wrong_name OPTIONS (ADD "ssl.endpoint.identification.algorithm" 'none')});
wait_for_relay($node, 'wrong_name', $sent, 'unless the check of names is turned off by name');

# --- credentials ---

my $views = $node->safe_psql('postgres', 'SELECT * FROM es_relays; SELECT * FROM es_workers; SELECT es_metrics(); SELECT * FROM pg_foreign_server');
unlike($views, qr/hush/, 'no view shows a password');
is($node->safe_psql('postgres', 'SET ROLE looker; SELECT count(umoptions) FROM pg_user_mappings'), '0', 'nor do user mappings, to others');
check_no_password($node, 'hush');
$node->safe_psql('postgres', 'SELECT es_drop_relay(relay) FROM es_relays');

# --- the partitioner ---

my $plain = $kafka->address;
$node->safe_psql('postgres', <<"END");
CREATE SERVER plain FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'kafka', "bootstrap.servers" '$plain');
SELECT es_append('Key', key, 'Made')
FROM (SELECT 'order-' || n FROM generate_series(1, 300) n UNION ALL
      SELECT repeat(chr(200 + n) || ' ', n) FROM generate_series(1, 50) n UNION ALL
      SELECT repeat('x', n) FROM generate_series(1, 50) n) keys (key);
SELECT es_create_relay('keys', 'plain', 'keys', options => '{"aggregate_types": ["Key"]}');
END
my @messages = $kafka->wait_for_messages('keys', 400);
is(scalar(@messages), 400, 'all keys arrive');
my ($hex, $out, $err) = ('', '', '');
foreach my $message (@messages)
{
	my $key = $message->{key};
	utf8::encode($key);
	$hex .= unpack('H*', $key) . "\n";
}
my ($jars) = glob("$ENV{EVENTSRC_CACHE}/kafka-*/libs");
IPC::Run::run([ 'java', '-cp', "$jars/*", "$FindBin::RealBin/Partition.java", $partitions ], '<', \$hex, '>', \$out, '2>', \$err)
  or die "java: $err";
is_deeply([ map { $_->{partition} } @messages ], [ split /\n/, $out ], 'each key is in the partition that the Java client chooses');
my %used = map { $_->{partition} => 1 } @messages;
is(scalar(keys %used), $partitions, 'which are all of them');

done_testing();
