import { price } from './basket.js';
import { Drawing } from './art.jsx';

export function Catalogue({ products, trouble, basket, onChoose, onRetry }) {
  return (
    <section aria-labelledby="catalogue-title">
      <h2 id="catalogue-title">The catalogue</h2>
      {trouble && (
        <p className="trouble" role="alert">
          The catalogue cannot be shown: {trouble}. <button onClick={onRetry}>Try again</button>
        </p>
      )}
      <ul className="goods" aria-busy={products === null}>
        {(products ?? Array.from({ length: 8 }, (_, index) => ({ id: index, blank: true }))).map((product) =>
          product.blank ? (
            !trouble && <li key={product.id} className="card blank" aria-hidden="true" />
          ) : (
            <Card key={product.id} product={product} quantity={basket[product.id] ?? 0} onChoose={onChoose} />
          ),
        )}
      </ul>
    </section>
  );
}

function Card({ product, quantity, onChoose }) {
  const { name, description, priceCents, stock, art } = product;
  return (
    <li className={`card ${stock === 0 ? 'sold-out' : ''}`}>
      <div className={`panel art-${art}`}>
        <Drawing name={art} />
      </div>
      <div className="words">
        <h3>{name}</h3>
        <p className="description">{description}</p>
        <Stock product={product} />
        <div className="buy">
          <span className="price">{price(priceCents)}</span>
          {quantity > 0 ? (
            <Stepper product={product} quantity={quantity} onChoose={onChoose} />
          ) : (
            <button className="add" disabled={stock === 0} onClick={() => onChoose(product, 1)} aria-label={`Add ${name} to the basket`}>
              {stock === 0 ? 'Sold out' : 'Add'}
            </button>
          )}
        </div>
      </div>
    </li>
  );
}

function Stock({ product: { stock, capacity } }) {
  const share = Math.max(0, Math.min(1, stock / capacity));
  const words = stock === 0 ? 'none left' : stock <= 5 ? `only ${stock} left` : `${stock} in stock`;
  return (
    <p className={`stock ${stock <= 5 ? 'low' : ''}`}>
      <meter min="0" max={capacity} value={stock} aria-label="In stock" />
      <span className="gauge" aria-hidden="true">
        <svg viewBox="0 0 100 6" preserveAspectRatio="none">
          <rect className="track" width="100" height="6" />
          <rect className="fill" width={100 * share} height="6" />
        </svg>
      </span>
      {words}
    </p>
  );
}

export function Stepper({ product, quantity, onChoose }) {
  return (
    <span className="stepper" role="group" aria-label={`Quantity of ${product.name}`}>
      <button onClick={() => onChoose(product, quantity - 1)} aria-label="One less">
        −
      </button>
      <output aria-live="polite">{quantity}</output>
      <button onClick={() => onChoose(product, quantity + 1)} disabled={quantity >= product.stock} aria-label="One more">
        +
      </button>
    </span>
  );
}
