-- One order comes, an older one moves on, a very old one goes.
\set customer random(1, 100)
\set cents random(100, 99999)
BEGIN;
INSERT INTO orders (customer, total) VALUES (:customer, :cents / 100.0);
UPDATE orders SET status = 'sent' WHERE id = (SELECT max(id) - 10 FROM orders);
DELETE FROM orders WHERE id = (SELECT max(id) - 1000 FROM orders);
COMMIT;
