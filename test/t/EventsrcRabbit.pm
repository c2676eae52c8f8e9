# EventsrcRabbit: a real RabbitMQ for TAP tests.
#
#     use EventsrcRabbit;
#
#     my $rabbit = new_rabbit();                     # needs test/setup/install.sh rabbitmq
#     $rabbit->address;  $rabbit->port;              # host:port, and the port alone
#     $rabbit->stop;  $rabbit->start;  $rabbit->kill9;
#     $rabbit->ctl('list_queues', 'name');           # rabbitmqctl
#     my @messages = $rabbit->messages('queue');     # all that ever were in it, as rabbitmq_read.py prints them
#     my @messages = $rabbit->brief('queue');        # only some fields, which is faster
#     $rabbit->bind('queue', 'exchange', 'key');
package EventsrcRabbit;

use strict;
use warnings;
use Exporter 'import';
use File::Basename qw(dirname);
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Utils;

our @EXPORT = qw(new_rabbit);

my $here = dirname(__FILE__);

# those that were started, to be ended before their folders are removed
my @nodes;

END
{
	local ($?, $@);
	foreach my $node (@nodes)
	{
		eval { $node->control('kill9') };
	}
}

# Debian's python3 has Debian's python3-pika; another that comes first in PATH may not.
my $python = '/usr/bin/python3';

# new_rabbit starts a node of its own, which stops when the test ends.
#     options: conf => 'lines for rabbitmq.conf', tls => folder with ca.pem, cert.pem, key.pem
sub new_rabbit
{
	my (%option) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir('rabbit');
	my $self = bless { folder => $folder, seen => {} }, 'EventsrcRabbit::Node';
	if ($option{conf})
	{
		PostgreSQL::Test::Utils::append_to_file("$folder/more.conf", $option{conf});
		$ENV{RABBITMQ_CONF} = "$folder/more.conf";
	}
	$ENV{RABBITMQ_TLS} = $option{tls} if $option{tls};
	push @nodes, $self;
	$self->start;
	delete @ENV{ 'RABBITMQ_CONF', 'RABBITMQ_TLS' };
	return $self;
}

# run runs a program and returns what it prints.
sub run
{
	my (@command) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err) or die "@command: $out $err";
	chomp $out;
	return $out;
}

package EventsrcRabbit::Node;

# control calls test/setup/rabbitmq.sh.
sub control
{
	my ($self, $act, @arguments) = @_;
	return EventsrcRabbit::run('bash', "$here/../setup/rabbitmq.sh", $act, $self->{folder}, @arguments);
}

# start starts the node, after stop or kill9 at the same address and with its old data.
sub start
{
	my ($self) = @_;
	($self->{address}, $self->{tls_port}) = split / /, $self->control('up');
	return;
}

# stop stops the node in good order, kill9 as a crash would.
sub stop { $_[0]->control('down'); return; }
sub kill9 { $_[0]->control('kill9'); return; }

# address returns host:port, port the port, tls_port that for TLS, process the node's process id.
sub address { return $_[0]{address}; }
sub port { return (split /:/, $_[0]{address})[1]; }
sub tls_port { return $_[0]{tls_port}; }
sub process { return PostgreSQL::Test::Utils::slurp_file("$_[0]{folder}/beam") + 0; }

# ctl runs rabbitmqctl.
sub ctl { my ($self, @arguments) = @_; return $self->control('ctl', '-q', @arguments); }

# messages takes the messages out of a queue and returns all that it ever took, in order.
#     stream => 1: it is a stream, which keeps them itself
sub messages
{
	my ($self, $queue, %option) = @_;
	my $json = JSON::PP->new->utf8;
	return $self->take($queue, sub { return $json->decode($_[0]) }, grep { $option{$_} } 'stream');
}

# brief does the same, for messages of relays, but returns only {key, version, id, position, type} of each.
sub brief
{
	my ($self, $queue, %option) = @_;
	my $read = sub {
		my %message;
		@message{qw(key version id position type)} = split /\t/, $_[0];
		return \%message;
	};
	return map {
		my $headers = $_->{headers};
		$headers
		  ? { (map { $_ => $headers->{$_} } qw(key version position)), id => $_->{message_id}, type => $headers->{'aggregate-type'} }
		  : $_
	} $self->take($queue, $read, 'brief', grep { $option{$_} } 'stream');
}

# take runs rabbitmq_read.py, reads each line that it prints and adds it to what came before.
sub take
{
	my ($self, $queue, $read, @how) = @_;
	my @messages = map { $read->($_) } split /\n/,
	  EventsrcRabbit::run($python, "$here/rabbitmq_read.py", $self->{address}, $queue, @how);
	return @messages if grep { $_ eq 'stream' } @how;
	push @{ $self->{seen}{$queue} }, @messages;
	return @{ $self->{seen}{$queue} };
}

# bind declares a durable queue of type classic and a topic exchange, and binds the queue to it.
sub bind
{
	my ($self, $queue, $exchange, $key) = @_;
	my ($host, $port) = split /:/, $self->{address};
	EventsrcRabbit::run($python, '-c', <<'END', $host, $port, $queue, $exchange, $key);
import sys
import pika
host, port, queue, exchange, key = sys.argv[1:]
channel = pika.BlockingConnection(pika.ConnectionParameters(host, int(port))).channel()
channel.queue_declare(queue, durable=True)
channel.exchange_declare(exchange, "topic", durable=True)
channel.queue_bind(queue, exchange, key)
END
	return;
}

1;
