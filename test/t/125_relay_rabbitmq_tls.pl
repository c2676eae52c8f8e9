# The relay to RabbitMQ with TLS: certificates and names are verified unless options say no.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcRabbit;
use EventsrcTest;
use PostgreSQL::Test::Utils;
use Test::More;

# make_certificates makes an authority, a certificate of a server for a name, and one of a client.
sub make_certificates
{
	my ($folder, $name) = @_;
	my @openssl = ('openssl', 'req', '-newkey', 'rsa:2048', '-sha256', '-days', '3650');
	my @sign = ('openssl', 'x509', '-req', '-CA', "$folder/ca.pem", '-CAkey', "$folder/ca.key", '-CAcreateserial', '-days', '3650', '-sha256');
	PostgreSQL::Test::Utils::append_to_file("$folder/names", "subjectAltName = $name\n");
	system_or_bail(@openssl, '-x509', '-nodes', '-subj', '/CN=authority', '-keyout', "$folder/ca.key", '-out', "$folder/ca.pem");
	system_or_bail(@openssl, '-nodes', '-subj', '/CN=broker', '-keyout', "$folder/key.pem", '-out', "$folder/cert.csr");
	system_or_bail(@sign, '-in', "$folder/cert.csr", '-out', "$folder/cert.pem", '-extfile', "$folder/names");
	system_or_bail(@openssl, '-passout', 'pass:hush-hush', '-subj', '/CN=relay', '-keyout', "$folder/client.key", '-out', "$folder/client.csr");
	system_or_bail(@sign, '-in', "$folder/client.csr", '-out', "$folder/client.pem");
	chmod 0600, glob("$folder/*.key"), "$folder/key.pem";
	return;
}

my $tls = PostgreSQL::Test::Utils::tempdir('tls');
make_certificates($tls, 'DNS:localhost');
my $other = PostgreSQL::Test::Utils::tempdir('other');
make_certificates($other, 'DNS:localhost');
my $rabbit = new_rabbit(tls => $tls);
my $port = $rabbit->tls_port;
my $node = new_node('relay');
create_extension($node);

# change changes the server's options and has the relay try at once.
sub change
{
	my ($options) = @_;
	$node->safe_psql('postgres', "ALTER SERVER mq OPTIONS ($options); SELECT es_append('Order', '1', 'Placed'), es_resume_relay('r')");
	return;
}

$node->safe_psql('postgres', <<"END");
SELECT es_create_store();
SELECT es_append('Order', '1', 'Placed', jsonb_build_object('x', repeat('x', 500000)));
CREATE SERVER mq FOREIGN DATA WRAPPER eventsrc OPTIONS (type 'rabbitmq', host 'localhost', port '$port',
    tls 'on', tls_ca '$tls/ca.pem', declare 'queues', queues 'q');
SELECT es_create_relay('r', 'mq', 'q');
END
wait_for_relay($node, 'r', q{state = 'running' AND lag_events = 0 AND sent = 1}, 'with the right authority and name');
change(qq{SET tls_ca '$other/ca.pem'});
wait_for_relay($node, 'r', q{state = 'retrying' AND lag_events = 1 AND last_error LIKE 'the broker''s certificate is not accepted: %'},
	'not with another authority');
note($node->safe_psql('postgres', 'SELECT last_error FROM es_relays'));
change(q{ADD tls_verify_peer 'off'});
wait_for_relay($node, 'r', q{state = 'running' AND lag_events = 0}, 'unless nobody is to be verified');
change(qq{SET tls_ca '$tls/ca.pem', SET tls_verify_peer 'on', SET host '127.0.0.1'});
wait_for_relay($node, 'r', q{state = 'retrying' AND lag_events = 1 AND last_error LIKE 'the broker''s certificate is not accepted: %IP%'},
	'not under another name');
note($node->safe_psql('postgres', 'SELECT last_error FROM es_relays'));
change(q{ADD tls_verify_hostname 'off'});
wait_for_relay($node, 'r', q{state = 'running' AND lag_events = 0}, 'unless the name is not to be verified');
change(q{DROP tls_ca});
wait_for_relay($node, 'r', q{state = 'retrying' AND lag_events = 1 AND last_error LIKE 'the broker''s certificate is not accepted: %'},
	q{an authority of one's own is not among those that the system trusts});
change(qq{ADD tls_ca '$tls/nothing.pem'});
wait_for_relay($node, 'r', q{state = 'retrying' AND lag_events = 2 AND last_error LIKE 'could not load the certificates of option "tls_ca"%'},
	'a file that is not there');

# a certificate of the client's, its key with a password
$node->safe_psql('postgres', qq{ALTER SERVER mq OPTIONS (SET tls_ca '$tls/ca.pem', ADD tls_cert '$tls/client.pem', ADD tls_key '$tls/client.key')});
$node->safe_psql('postgres', q{SELECT es_resume_relay('r')});
wait_for_relay($node, 'r', q{state = 'retrying' AND last_error LIKE 'could not load the key of option "tls_key"%'}, q{a key without its password});
$node->safe_psql('postgres', q{CREATE USER MAPPING FOR CURRENT_USER SERVER mq OPTIONS (tls_key_password 'hush-hush');
	SELECT es_resume_relay('r')});
wait_for_relay($node, 'r', q{state = 'running' AND lag_events = 0}, 'and with it');

# a port that does not speak TLS, and the other way round
my $plain = $rabbit->port;
change(qq{SET port '$plain'});
wait_for_relay($node, 'r', q{state = 'retrying' AND lag_events = 1}, 'TLS to a port that has none');
note($node->safe_psql('postgres', 'SELECT last_error FROM es_relays'));
$node->safe_psql('postgres', q{ALTER SERVER mq OPTIONS (DROP tls, DROP tls_ca, DROP tls_cert, DROP tls_key, DROP tls_verify_peer, DROP tls_verify_hostname);
	SELECT es_resume_relay('r')});
wait_for_relay($node, 'r', q{state = 'running' AND lag_events = 0}, 'without TLS');
is(join(' ', map { $_->{headers}{version} } $rabbit->messages('q')), '1 2 3 4 5 6 7 8', 'every event arrived once');

$node->stop;
check_no_password($node, 'hush-hush');
check_no_crash($node);

done_testing();
