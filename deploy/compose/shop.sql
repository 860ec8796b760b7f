-- A small shop.
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer int NOT NULL REFERENCES customers,
    total numeric(9,2) NOT NULL,
    status text NOT NULL DEFAULT 'new',
    ordered_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 100) n;
