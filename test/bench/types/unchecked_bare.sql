\set i :i + 1
\set s :i % 100
\set v :i / 100
SELECT version FROM es_append('Payment', 'p' || :run || '-' || :client_id || '-' || :s, 'PaymentNoted', '{"payment_id": "pay_0123456789abcdef", "order_id": "order-4711-2026", "amount": 129.95, "currency": "EUR", "method": "card", "taken_at": "2026-03-01T12:34:56Z", "customer": {"id": 4711, "country": "DE", "email": "somebody@example.org"}, "tags": ["web", "first", "newsletter", "discount"]}', :v);
