-- the same events of a type with a JSON Schema, and of one without; 300 B of data
CREATE EXTENSION eventsrc;
SELECT es_create_store();
SELECT es_create_aggregate('Payment', snapshot_every => 0);
SELECT es_create_event_type('PaymentTaken', json_schema => '{
    "type": "object", "additionalProperties": false,
    "required": ["payment_id", "order_id", "amount", "currency", "method", "taken_at", "customer"],
    "properties": {
        "payment_id": {"type": "string", "pattern": "^pay_[0-9a-f]{16}$"},
        "order_id": {"type": "string", "minLength": 1, "maxLength": 40},
        "amount": {"type": "number", "exclusiveMinimum": 0, "maximum": 1000000},
        "currency": {"enum": ["EUR", "USD", "GBP", "CHF"]},
        "method": {"type": "string", "enum": ["card", "transfer", "cash"]},
        "taken_at": {"type": "string"},
        "customer": {"type": "object", "required": ["id", "country"],
                     "properties": {"id": {"type": "integer"}, "country": {"type": "string", "minLength": 2, "maxLength": 2},
                                    "email": {"type": "string"}}},
        "tags": {"type": "array", "maxItems": 10, "items": {"type": "string"}}}}');
