# The broker that the relay's tests use keeps what it acknowledged over a stop and a crash.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use EventsrcTest;
use Test::More;

my $kafka = new_kafka();
my $address = $kafka->address;
is(scalar $kafka->messages('nothing'), 0, 'an unknown topic has no messages');
$kafka->produce('t', map { [ "k$_", qq({"n":$_}) ] } 1 .. 3);
my @messages = $kafka->wait_for_messages('t', 3);
is_deeply([ map { [ $_->{key}, $_->{value}{n}, $_->{offset} ] } @messages ],
	[ [ 'k1', 1, 0 ], [ 'k2', 2, 1 ], [ 'k3', 3, 2 ] ], 'messages are read with key, value and offset');
$kafka->stop;
$kafka->start;
is($kafka->address, $address, 'the address stays');
$kafka->kill9;
$kafka->start;
is(scalar $kafka->wait_for_messages('t', 3), 3, 'messages outlive a crash of the broker');

done_testing();
