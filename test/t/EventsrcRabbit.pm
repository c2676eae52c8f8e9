# EventsrcRabbit: a real RabbitMQ for TAP tests, and a TCP proxy that makes trouble between a relay and its broker.
#
#     use EventsrcRabbit;
#
#     my $rabbit = new_rabbit();                     # needs test/setup/install.sh rabbitmq
#     $rabbit->address;  $rabbit->port;              # host:port, and the port alone
#     $rabbit->stop;  $rabbit->start;  $rabbit->kill9;
#     $rabbit->ctl('list_queues', 'name');           # rabbitmqctl
#     my @messages = $rabbit->messages('queue');     # all that ever were in it, as rabbitmq_read.py prints them
#     $rabbit->bind('queue', 'exchange', 'key');
#
#     my $proxy = new_proxy($rabbit->address);
#     $proxy->port;  $proxy->tell('drop');           # see tcp_proxy.py
package EventsrcRabbit;

use strict;
use warnings;
use Exporter 'import';
use File::Basename qw(dirname);
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Utils;

our @EXPORT = qw(new_rabbit new_proxy);

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

# new_proxy starts a proxy before an address.
sub new_proxy
{
	my ($address) = @_;
	my $self = bless { in => '', out => '', err => '' }, 'EventsrcRabbit::Proxy';
	$self->{run} = IPC::Run::start([ $python, "$here/tcp_proxy.py", $address ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err});
	$self->{port} = $self->answer + 0;
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
#     brief => 1: only the fields that check_queue() needs, as [key, version, message id, position, aggregate type]
sub messages
{
	my ($self, $queue, %option) = @_;
	my $out = EventsrcRabbit::run($python, "$here/rabbitmq_read.py", $self->{address}, $queue,
		grep { $option{$_} } qw(stream brief));
	my @messages =
	  map { $option{brief} ? [ split /\t/ ] : JSON::PP->new->utf8->decode($_) } split /\n/, $out;
	return @messages if $option{stream};
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

package EventsrcRabbit::Proxy;

# answer waits for a line.
sub answer
{
	my ($self) = @_;
	$self->{run}->pump until $self->{out} =~ s/^(.*)\n//;
	return $1;
}

# port returns where it listens.
sub port { return $_[0]{port}; }

# tell gives it a command.
sub tell
{
	my ($self, $command) = @_;
	$self->{in} .= "$command\n";
	$self->answer eq 'ok' or die "proxy: $self->{err}";
	return;
}

# DESTROY ends it.
sub DESTROY
{
	my ($self) = @_;
	local ($?, $@);
	eval { $self->{run}->kill_kill };
	return;
}

1;
