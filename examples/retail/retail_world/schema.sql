-- The sales history. Runs inside the transaction that fills it, so that nobody sees half of it.
-- `keys.sql` follows once the rows are there.

DROP TABLE IF EXISTS daily_sales, products, suppliers, distribution_centers, dataset;

CREATE TABLE dataset (
    version text PRIMARY KEY,
    as_of date NOT NULL
);
COMMENT ON TABLE dataset IS 'Which data set this is: one row.';
COMMENT ON COLUMN dataset.as_of IS 'The day on which everything is told. Sales end the day before.';

CREATE TABLE distribution_centers (
    code text PRIMARY KEY,
    city text NOT NULL,
    country text NOT NULL,
    region text NOT NULL,
    port text NOT NULL
);
COMMENT ON TABLE distribution_centers IS 'Distribution centers (DCs).';
COMMENT ON COLUMN distribution_centers.code IS 'Three letters, for example SHA for Shanghai.';
COMMENT ON COLUMN distribution_centers.port IS 'Port or terminal through which goods from abroad arrive.';

CREATE TABLE suppliers (
    supplier_id text PRIMARY KEY,
    name text NOT NULL,
    city text NOT NULL,
    country text NOT NULL,
    lead_time_days integer NOT NULL
);
COMMENT ON TABLE suppliers IS 'Who makes the products.';
COMMENT ON COLUMN suppliers.lead_time_days IS 'Days from order to arrival at the distribution center, as agreed.';

CREATE TABLE products (
    sku text PRIMARY KEY,
    name text NOT NULL,
    category text NOT NULL,
    supplier_id text NOT NULL REFERENCES suppliers,
    list_price numeric(10, 2) NOT NULL,
    units_per_carton integer NOT NULL,
    status text NOT NULL CHECK (status IN ('active', 'discontinued'))
);
COMMENT ON TABLE products IS 'What is sold. SKU = stock keeping unit.';
COMMENT ON COLUMN products.sku IS 'For example SKU-4482.';
COMMENT ON COLUMN products.list_price IS 'US dollars, without promotion.';
COMMENT ON COLUMN products.status IS 'discontinued: no longer ordered from the supplier; what is left is sold.';

CREATE TABLE daily_sales (
    day date NOT NULL,
    sku text NOT NULL,
    dc text NOT NULL,
    units integer NOT NULL,
    unit_price numeric(10, 2) NOT NULL,
    promotion boolean NOT NULL
);
COMMENT ON TABLE daily_sales IS
    'Units sold: one row a day for each product that a distribution center keeps, from the day it was listed there.';
COMMENT ON COLUMN daily_sales.units IS
    'Units that left the shelf. 0 can mean that nobody asked or that there was nothing to sell: demand is not recorded.';
COMMENT ON COLUMN daily_sales.unit_price IS 'US dollars, after promotion.';
COMMENT ON COLUMN daily_sales.promotion IS 'Whether a promotion of ours ran on that day.';
